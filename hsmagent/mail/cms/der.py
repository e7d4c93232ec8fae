"""A writer for DER (ITU-T X.690): what signing and encrypting put around their results.

Every function returns one whole encoded element, except `header` and `content_info`: they give what
stands before contents that are too large to pass through here.
"""

import binascii
from datetime import UTC, datetime

NULL = b"\x05\x00"

# RFC 5652 section 11.3: UTCTime through 2049.
_UTC_TIME_ENDS = 2050
_PEM_LINE = 48  # bytes that make a line of 64 characters (RFC 7468, section 2)


def header(tag: int, length: int) -> bytes:
    """Return identifier and length octets in front of `length` bytes."""
    if length < 0x80:  # noqa: PLR2004 (the short form)
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big")


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element with `parts` as its contents."""
    body = b"".join(parts)
    return header(tag, len(body)) + body


def content_info(kind: str, length: int) -> bytes:
    """Return what stands in a ContentInfo before `length` bytes of a SEQUENCE (RFC 5652, 3)."""
    inner = header(0x30, length)
    outer = header(0xA0, len(inner) + length)
    head = oid(kind) + outer + inner
    return header(0x30, len(head) + length) + head


def sequence(*parts: bytes) -> bytes:
    """SEQUENCE of elements in the order given."""
    return tlv(0x30, *parts)


def set_of(*parts: bytes) -> bytes:
    """SET OF elements, sorted as DER wants (X.690, section 11.6)."""
    return tlv(0x31, *sorted(parts))


def octets(value: bytes) -> bytes:
    """OCTET STRING."""
    return tlv(0x04, value)


def integer(value: int) -> bytes:
    """INTEGER, zero or more."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        body += bytes(reversed(groups))
    return tlv(0x06, bytes(body))


def time(moment: datetime) -> bytes:
    """UTCTime through 2049, GeneralizedTime after (RFC 5652, section 11.3)."""
    moment = moment.astimezone(UTC)
    if moment.year < _UTC_TIME_ENDS:
        return tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def pem(label: str, data: bytes) -> bytes:
    """Return DER as PEM (RFC 7468)."""
    lines = (
        binascii.b2a_base64(data[at : at + _PEM_LINE]) for at in range(0, len(data), _PEM_LINE)
    )
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (
        label.encode(),
        b"".join(lines),
        label.encode(),
    )
