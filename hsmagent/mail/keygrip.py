"""GnuPG's keygrip: SHA-1 over a public key's numbers, as libgcrypt's gcry_pk_get_keygrip has it."""

from functools import lru_cache
from hashlib import sha1

from cryptography.hazmat.primitives.asymmetric import ec

from hsmagent.mail.cms import ber
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.parse import public_key
from hsmagent.model import Key, KeyType

# Each curve, its order and its coefficient a in hex (SEC 2; RFC 5639); where a is "", it is p - 3.
# The other numbers follow from the order and the base point.
_CURVES: dict[str, tuple[ec.EllipticCurve, str, str]] = {
    "secp256r1": (
        ec.SECP256R1(),
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        "",
    ),
    "secp384r1": (
        ec.SECP384R1(),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffff"
            "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        ),
        "",
    ),
    "secp521r1": (
        ec.SECP521R1(),
        (
            "1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
            "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"
        ),
        "",
    ),
    "brainpoolP256r1": (
        ec.BrainpoolP256R1(),
        "a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7",
        "7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9",
    ),
    "brainpoolP384r1": (
        ec.BrainpoolP384R1(),
        (
            "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b3"
            "1f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565"
        ),
        (
            "7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787"
            "139165efba91f90f8aa5814a503ad4eb04a8c7dd22ce2826"
        ),
    ),
    "brainpoolP512r1": (
        ec.BrainpoolP512R1(),
        (
            "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870"
            "553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069"
        ),
        (
            "7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc"
            "2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94ca"
        ),
    ),
}


def of(key: Key) -> str:
    """Return the keygrip in upper-case hex; "" for a kind of key that has none here."""
    try:
        _, bits = public_key(key.spki)
        value = ber.octets(bits, "the public key", ber.BIT_STRING)[1:]
        if key.key_type is KeyType.RSA:
            return sha1(_modulus(value)).hexdigest().upper()  # noqa: S324 - a name
    except Malformed:
        return ""
    if key.key_type is not KeyType.EC or key.curve not in _CURVES:
        return ""
    state = sha1()  # noqa: S324 - a name
    for name, number in zip("pabgnq", (*_numbers(key.curve), value), strict=True):
        state.update(f"(1:{name}{len(number)}:".encode() + number + b")")
    return state.hexdigest().upper()


@lru_cache(maxsize=len(_CURVES))
def _numbers(name: str) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return p, a, b, G (uncompressed) and n: y² = x³ + ax + b (mod p)."""
    curve, order, a_in_hex = _CURVES[name]
    n = int(order, 16)
    g = ec.derive_private_key(1, curve).public_key().public_numbers()
    # (n - 1) times the base point is the base point mirrored: (x, p - y).
    p = g.y + ec.derive_private_key(n - 1, curve).public_key().public_numbers().y
    a = int(a_in_hex, 16) if a_in_hex else p - 3
    b = (g.y**2 - g.x**3 - a * g.x) % p
    size = (curve.key_size + 7) // 8
    base = b"\4" + g.x.to_bytes(size, "big") + g.y.to_bytes(size, "big")
    return _unsigned(p), _unsigned(a), _unsigned(b), base, _unsigned(n)


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _modulus(value: bytes) -> bytes:
    """Return an RSA modulus as libgcrypt hashes it: with the zero that keeps it positive."""
    reader = ber.inside(value, "the public key")
    element = reader.element(len(value), "the public key", ber.INTEGER)
    return ber.octets(element, "the public key", ber.INTEGER)
