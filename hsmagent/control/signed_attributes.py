"""Whether a message is a mail's signed attributes: the mail socket signs nothing else."""

from collections.abc import Iterator

SEQUENCE, SET, OBJECT_IDENTIFIER = 0x30, 0x31, 0x06
LONG_FORM = 0x80
MOST_LENGTH_BYTES = 4

# The two that every signature of a mail has (RFC 5652, section 5.3).
CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")


def is_signed_attributes(message: bytes) -> bool:
    """Whether this is the DER SET OF Attribute that a mail's signature is made over.

    Each element is an Attribute (RFC 5652, section 5.3): an OID and a SET, and nothing else.
    """
    try:
        [(tag, attributes)] = _values(message)
        found = [_attribute(tag, body) for tag, body in _values(attributes)] if tag == SET else []
    except ValueError:
        return False
    return found.count(CONTENT_TYPE) == 1 and found.count(MESSAGE_DIGEST) == 1


def _attribute(tag: int, body: bytes) -> bytes:
    [(first, oid), (second, _)] = _values(body)
    if (tag, first, second) != (SEQUENCE, OBJECT_IDENTIFIER, SET):
        raise ValueError("no attribute")
    return oid


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER value in turn. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, length, begin = _header(data, at)
        at = begin + length
        if at > len(data):
            raise ValueError("cut short")
        yield tag, data[begin:at]


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, length and where the content begins. Raises ValueError for what is not DER."""
    if at + 2 > len(data):
        raise ValueError("cut short")
    tag, first = data[at], data[at + 1]
    if first < LONG_FORM:
        return tag, first, at + 2
    size = first - LONG_FORM
    begin = at + 2 + size
    length = int.from_bytes(data[at + 2 : begin], "big")
    if not 0 < size <= MOST_LENGTH_BYTES or length < LONG_FORM or not data[at + 2]:
        raise ValueError("no length of DER")
    return tag, length, begin
