"""BER-TLV as far as a smart card needs it: tags of one or two bytes, definite lengths."""

from collections.abc import Iterator

SEQUENCE = 0x30
OCTET_STRING = 0x04
INTEGER = 0x02
BIT_STRING = 0x03
UTF8_STRING = 0x0C
OBJECT_IDENTIFIER = 0x06

_LONG_TAG = 0x1F
_LONG_LENGTH = 0x80
_MOST_LENGTH_BYTES = 4


def tlv(tag: int, *values: bytes) -> bytes:
    """Return one data object; several values are concatenated, as in a constructed one."""
    value = b"".join(values)
    if len(value) < _LONG_LENGTH:
        length = bytes([len(value)])
    else:
        size = (len(value).bit_length() + 7) // 8
        length = bytes([_LONG_LENGTH | size]) + len(value).to_bytes(size, "big")
    return tag.to_bytes(2 if tag > 0xFF else 1, "big") + length + value  # noqa: PLR2004 - a byte


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of the data objects that follow one another in `data`.

    Raises ValueError where the bytes end early, or for a length that is not definite.
    """
    at = 0
    while at < len(data):
        tag, at = _tag(data, at)
        length, at = _length(data, at)
        if at + length > len(data):
            raise ValueError("a data object reaches past the end")
        yield tag, data[at : at + length]
        at += length


def first(data: bytes) -> bytes:
    """Return the first data object alone, with its tag; b"" where there is none.

    A card's files never get shorter: the end of a longer old content may follow the new one.
    Raises ValueError.
    """
    for _, value in walk(data):
        _, at = _tag(data, 0)
        _, start = _length(data, at)
        return data[: start + len(value)]
    return b""


def fields(data: bytes) -> dict[int, bytes]:
    """Return the data objects of `data` by tag. Raises ValueError."""
    return dict(walk(data))


def one(data: bytes, tag: int) -> bytes:
    """Return the value of the only data object in `data`, which has `tag`. Raises ValueError."""
    found = list(walk(data))
    if len(found) != 1 or found[0][0] != tag:
        raise ValueError(f"not one data object with tag {tag:X}")
    return found[0][1]


def integer(value: int) -> bytes:
    """Return a DER INTEGER that is not negative."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tag(data: bytes, at: int) -> tuple[int, int]:
    if data[at] & _LONG_TAG == _LONG_TAG:
        return int.from_bytes(data[at : at + 2], "big"), at + 2
    return data[at], at + 1


def _length(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise ValueError("a data object without a length")
    first = data[at]
    if first < _LONG_LENGTH:
        return first, at + 1
    size = first - _LONG_LENGTH
    if not 0 < size <= _MOST_LENGTH_BYTES:
        raise ValueError("a data object without a definite length")
    end = at + 1 + size
    return int.from_bytes(data[at + 1 : end], "big"), end
