"""Public keys as canonical S-expressions (libgcrypt's manual, "Cryptographic Functions")."""

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

# libgcrypt's names of curves, by ours.
_CURVES = {
    "secp256r1": "NIST P-256",
    "secp384r1": "NIST P-384",
    "secp521r1": "NIST P-521",
}


def of_public_key(spki: bytes) -> bytes:
    """Write a public key that has a keygrip. Raises ValueError for another kind."""
    public = load_der_public_key(spki)
    match public:
        case rsa.RSAPublicKey():
            numbers = public.public_numbers()
            n, e = _list("n", _signed(numbers.n)), _list("e", _signed(numbers.e))
            return _list("public-key", _list("rsa", n, e, raw=True), raw=True)
        case ec.EllipticCurvePublicKey():
            name = _CURVES.get(public.curve.name, public.curve.name)
            point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            curve, q = _list("curve", name.encode()), _list("q", point)
            return _list("public-key", _list("ecc", curve, q, raw=True), raw=True)
    raise ValueError("no kind of key that GnuPG gets from us")


def _list(name: str, *values: bytes, raw: bool = False) -> bytes:
    """Write a list: its name, and values that are atoms, or lists already (raw)."""
    inside = values if raw else map(_atom, values)
    return b"(" + _atom(name.encode()) + b"".join(inside) + b")"


def _atom(value: bytes) -> bytes:
    return str(len(value)).encode() + b":" + value


def _signed(number: int) -> bytes:
    """Write a number as libgcrypt does: two's complement, so that it may begin with a zero."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")
