"""Public keys from a token's raw attributes. Tokens encode the same key in different ways."""

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.token.curves import CURVES, curve_spelled_out
from hsmagent.worker import spec
from hsmagent.worker.messages import OF_A_TOKEN

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
MAX_EXPONENT_BITS = 64  # a longer one makes each check of a signature slow; nobody uses one

_DER_OCTET_STRING = 0x04
_ED25519_BYTES = 32

# Ed25519 has two OIDs in use and, as a PrintableString, a name (PKCS#11 3.0, section 2.3.10).
_ED25519_PARAMS = frozenset(
    {
        bytes.fromhex("06032b6570"),
        bytes.fromhex("06092b06010401da470f01"),
        b"\x13\x0cedwards25519",
    }
)
CURVE_NAMES = frozenset(curve.name for curve in CURVES.values())

Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class Odd(Exception):
    """Why an object is skipped, in plain words."""


def of(values: Mapping[int, bytes]) -> Public:
    """Return the public key that a public key object tells. Raises Odd."""
    if spec.CKA_KEY_TYPE not in values:
        raise Odd("a public key that does not tell its type")
    kind = int.from_bytes(values[spec.CKA_KEY_TYPE], sys.byteorder)
    read = _READERS.get(kind)
    if read is None:
        raise Odd(f"a key of type 0x{kind:x} is not supported")
    return read(values)


def rsa_of(values: Mapping[int, bytes]) -> rsa.RSAPublicKey:
    """Return the key of CKA_MODULUS and CKA_PUBLIC_EXPONENT, of a private key, too. Raises Odd."""
    n = int.from_bytes(values.get(spec.CKA_MODULUS, b""), "big")
    e = int.from_bytes(values.get(spec.CKA_PUBLIC_EXPONENT, b""), "big")
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
        raise Odd(
            f"an RSA key of {n.bit_length()} bits is not used ({MIN_RSA_BITS}-{MAX_RSA_BITS} are)"
        )
    if e.bit_length() > MAX_EXPONENT_BITS:
        raise Odd(f"an RSA key with an exponent of {e.bit_length()} bits")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise Odd("an RSA key whose numbers make no sense") from error


@lru_cache(maxsize=OF_A_TOKEN[0])
def modulus(spki: bytes) -> int:
    """Return an RSA key's modulus; 0 of another key."""
    public = load_der_public_key(spki)
    return public.public_numbers().n if isinstance(public, rsa.RSAPublicKey) else 0


def _ec(values: Mapping[int, bytes]) -> ec.EllipticCurvePublicKey:
    parameters = values.get(spec.CKA_EC_PARAMS, b"")
    curve = CURVES.get(parameters) or curve_spelled_out(parameters)
    if curve is None:
        if parameters[:1] != b"\6":
            raise Odd("a curve of its own is not supported")
        raise Odd(f"the curve {parameters.hex()}"[:80] + " is not supported")
    point = _unwrapped(values.get(spec.CKA_EC_POINT, b""), 1 + 2 * ((curve.key_size + 7) // 8))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except ValueError as error:
        raise Odd("an EC key whose point is not on its curve") from error


def _ed25519(values: Mapping[int, bytes]) -> ed25519.Ed25519PublicKey:
    if values.get(spec.CKA_EC_PARAMS, b"") not in _ED25519_PARAMS:
        raise Odd("an Edwards curve other than Ed25519 is not supported")
    point = _unwrapped(values.get(spec.CKA_EC_POINT, b""), _ED25519_BYTES)
    if len(point) != _ED25519_BYTES:
        raise Odd("an Ed25519 key whose point has the wrong length")
    return ed25519.Ed25519PublicKey.from_public_bytes(point)


def _unwrapped(point: bytes, size: int) -> bytes:
    """Return a CKA_EC_POINT of `size` bytes without the OCTET STRING around it, if there is one.

    Tokens give it either way. The length tells which it is: a raw point may begin as DER does.
    """
    for header in (2, 3):
        if len(point) == header + size and point[0] == _DER_OCTET_STRING:
            return point[header:]
    return point


_READERS: Mapping[int, Callable[[Mapping[int, bytes]], Public]] = {
    spec.CKK_RSA: rsa_of,
    spec.CKK_EC: _ec,
    spec.CKK_EC_EDWARDS: _ed25519,
}
