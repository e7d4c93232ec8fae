"""GnuPG's keygrip: SHA-1 over a public key's numbers, as libgcrypt's gcry_pk_get_keygrip has it."""

from hashlib import sha1

from hsmagent.mail.cms import ber
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.cms.parse import public_key
from hsmagent.mail.spool import Memory
from hsmagent.model import Key, KeyType

_MAX = 64 * 1024
# p, b, G (uncompressed) and n of SEC 2's curves, for all of which a = p - 3.
_CURVES = {
    "secp256r1": (
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
        "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
        (
            "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
        ),
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    ),
    "secp384r1": (
        (
            "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000"
            "ffffffff"
        ),
        (
            "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8ed"
            "d3ec2aef"
        ),
        (
            "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e"
            "3872760ab73617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e81"
            "9d7a431d7c90ea0e5f"
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196a"
            "ccc52973"
        ),
    ),
}


def of(key: Key) -> str:
    """Return the keygrip in upper-case hex; "" for a kind of key that has none here."""
    try:
        _, bits = public_key(key.spki)
        value = Reader(Memory(bits)).octets(_MAX, "the public key", ber.BIT_STRING)[1:]
        if key.key_type is KeyType.RSA:
            return sha1(_modulus(value)).hexdigest().upper()  # noqa: S324 - a name
    except Malformed:
        return ""
    if key.curve not in _CURVES:
        return ""
    p, b, g, n = (bytes.fromhex(number) for number in _CURVES[key.curve])
    a = (int.from_bytes(p, "big") - 3).to_bytes(len(p), "big")
    state = sha1()  # noqa: S324 - a name
    for name, number in zip("pabgnq", (p, a, b, g, n, value), strict=True):
        state.update(f"(1:{name}{len(number)}:".encode() + number + b")")
    return state.hexdigest().upper()


def _modulus(value: bytes) -> bytes:
    """Return an RSA modulus as libgcrypt hashes it: with the zero that keeps it positive."""
    reader = Reader(Memory(value))
    reader.enter(ber.SEQUENCE, "the public key")
    element = reader.element(_MAX, "the public key", ber.INTEGER)
    return Reader(Memory(element)).octets(_MAX, "the public key", ber.INTEGER)
