"""Private keys from ssh's fields to the DER that OpenSSL reads, in buffers that can be wiped.

A Python int cannot be wiped: its digits, and those of all that was computed with it, stay in freed
memory. So a secret number never becomes one. It is bytes, big-endian as in an mpint: a view of the
message, or a bytearray that whoever gets it wipes.
"""

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from hsmagent.frame import wipe

Octets = bytes | bytearray | memoryview

_INTEGER, _OCTET_STRING, _OBJECT_IDENTIFIER, _SEQUENCE, _PARAMETERS = 0x02, 0x04, 0x06, 0x30, 0xA0
# Curves by the octets of their private keys (RFC 5480, section 2.1.1.1): P-256, P-384, P-521.
_CURVES = {
    32: bytes.fromhex("2a8648ce3d030107"),
    48: bytes.fromhex("2b81040022"),
    66: bytes.fromhex("2b81040023"),
}


def rsa(public: RSAPublicNumbers, d: Octets, iqmp: Octets, p: Octets, q: Octets) -> bytearray:
    """Return an RSAPrivateKey (RFC 8017, appendix A.1.2).

    d, iqmp, p and q are octets, as in an mpint. Raises ValueError where the public exponent has no
    inverse; other numbers that do not belong together make a key that signs wrongly.
    """
    n, e = public.n, public.e
    exponents = [crt_exponent(prime, e) for prime in (p, q)]
    try:
        numbers = (b"\0", _unsigned(n), _unsigned(e), d, p, q, *exponents, iqmp)
        return _sequence([part for each in numbers for part in _element(_INTEGER, each)])
    finally:
        for exponent in exponents:
            wipe(exponent)


def ecdsa(private: Octets, size: int) -> bytearray:
    """Return an ECPrivateKey (RFC 5915, section 3), without its public half.

    size: octets of a private key of the curve. Raises ValueError for a key that is longer.
    """
    if len(private) > size + 1:
        raise ValueError("longer than a private key of its curve")
    private = private[-size:]  # an mpint may begin with a zero
    curve = b"".join(_element(_OBJECT_IDENTIFIER, _CURVES[size]))
    version = _element(_INTEGER, b"\1")
    octets = (_header(_OCTET_STRING, size), bytes(size - len(private)), private)
    return _sequence([*version, *octets, *_element(_PARAMETERS, curve)])


def crt_exponent(prime: Octets, e: int) -> bytearray:
    """Return d mod (prime - 1), which is the inverse of `e` there. Raises ValueError without one.

    That is (1 + k(prime - 1)) / e, with the one k below e that makes it a whole number; and so it
    takes two passes over the octets, in which no number is much larger than e.
    """
    rest = 0
    for octet in prime:
        rest = (rest << 8 | octet) % e
    k = pow(1 - rest, -1, e)
    result = bytearray(len(prime) + e.bit_length() // 8 + 1)
    carry = 1 - k
    for at in range(1, len(result) + 1):
        carry += k * prime[-at] if at <= len(prime) else 0
        result[-at] = carry & 0xFF
        carry >>= 8
    rest = 0
    for at, octet in enumerate(result):
        result[at], rest = divmod(rest << 8 | octet, e)
    while len(result) > 1 and result[0] == 0 and result[1] < 0x80:  # noqa: PLR2004 - the sign's bit
        del result[0]
    return result


def _unsigned(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def _sequence(parts: list[Octets]) -> bytearray:
    """Join the parts of a SEQUENCE, without copies that nobody could wipe."""
    return bytearray().join([_header(_SEQUENCE, sum(map(len, parts))), *parts])


def _element(tag: int, contents: Octets) -> tuple[Octets, Octets]:
    return _header(tag, len(contents)), contents


def _header(tag: int, length: int) -> bytes:
    if length < 0x80:  # noqa: PLR2004 - the short form
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big")
