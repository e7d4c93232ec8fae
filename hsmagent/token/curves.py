"""The curves that we use, and how CKA_EC_PARAMS gives them: by OID, or by all their numbers."""

from collections.abc import Iterator
from functools import cache, lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

# By the OID in DER.
CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
    bytes.fromhex("06052b8104000a"): ec.SECP256K1(),
    bytes.fromhex("06092b2403030208010107"): ec.BrainpoolP256R1(),
    bytes.fromhex("06092b240303020801010b"): ec.BrainpoolP384R1(),
    bytes.fromhex("06092b240303020801010d"): ec.BrainpoolP512R1(),
}

_SEQUENCE, _INTEGER, _OCTET_STRING = 0x30, 0x02, 0x04
_LONG = 0x80  # from here on, a length takes bytes of its own


@lru_cache(maxsize=16)
def curve_spelled_out(parameters: bytes) -> ec.EllipticCurve | None:
    """Return the curve whose ECParameters these are (RFC 3279, section 2.3.5), if we use it.

    Prime, base point and order are compared with those that `cryptography` has for the curve.
    """
    try:
        prime, base, order = _numbers(parameters)
        curve = _by_base(prime.bit_length(), base)
        # (order - 1) times the base point is the base point mirrored, (x, prime - y): if that
        # holds, order and prime are right.
        last = ec.derive_private_key(order - 1, curve).public_key().public_numbers()
    except (ValueError, LookupError):
        return None
    g = _base_of(curve)
    return curve if (last.x, last.y + g.y) == (g.x, prime) else None


def _numbers(parameters: bytes) -> tuple[int, bytes, int]:
    """Return prime, base point as it is encoded, and order. Raises ValueError, LookupError."""
    ((tag, inside),) = _walk(parameters)
    fields = list(_walk(inside))
    (_, field), (_, base), (_, order) = fields[1], fields[3], fields[4]
    kinds = tag, fields[0][0], fields[1][0], fields[2][0], fields[3][0], fields[4][0]
    if kinds != (_SEQUENCE, _INTEGER, _SEQUENCE, _SEQUENCE, _OCTET_STRING, _INTEGER):
        raise ValueError("no ECParameters")
    _, (_, prime) = _walk(field)
    return int.from_bytes(prime, "big"), base, int.from_bytes(order, "big")


def _walk(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of the DER elements that stand in a row in `der`. Raises ValueError."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= _LONG:
            size = length - _LONG
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("cut short")
        yield tag, der[at : at + length]
        at += length


def _by_base(bits: int, base: bytes) -> ec.EllipticCurve:
    """Return the curve of that size with this base point, compressed or not. Raises LookupError."""
    for curve in CURVES.values():
        size = (curve.key_size + 7) // 8
        g = _base_of(curve)
        x, y = g.x.to_bytes(size, "big"), g.y.to_bytes(size, "big")
        if curve.key_size == bits and base in (b"\4" + x + y, bytes((2 + g.y % 2,)) + x):
            return curve
    raise LookupError


@cache
def _base_of(curve: ec.EllipticCurve) -> ec.EllipticCurvePublicNumbers:
    return ec.derive_private_key(1, curve).public_key().public_numbers()
