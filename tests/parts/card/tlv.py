"""BER-TLV as far as a smart card needs it: tags of one or two bytes, definite lengths."""

from collections.abc import Iterator


def tlv(tag: int, *values: bytes) -> bytes:
    """Return one data object; several values are concatenated, as in a constructed one."""
    value = b"".join(values)
    if len(value) < 0x80:
        length = bytes([len(value)])
    else:
        size = (len(value).bit_length() + 7) // 8
        length = bytes([0x80 | size]) + len(value).to_bytes(size, "big")
    return tag.to_bytes(2 if tag > 0xFF else 1, "big") + length + value


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of the data objects that follow one another in `data`.

    Raises ValueError where the bytes end early.
    """
    at = 0
    while at < len(data):
        tag, at = _tag(data, at)
        length, at = _length(data, at)
        if at + length > len(data):
            raise ValueError("a data object reaches past the end")
        yield tag, data[at : at + length]
        at += length


def fields(data: bytes) -> dict[int, bytes]:
    """Return the data objects of `data` by tag."""
    return dict(walk(data))


def integer(value: int) -> bytes:
    """Return a DER INTEGER."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tag(data: bytes, at: int) -> tuple[int, int]:
    if data[at] & 0x1F == 0x1F:
        return int.from_bytes(data[at : at + 2], "big"), at + 2
    return data[at], at + 1


def _length(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise ValueError("a data object without a length")
    first = data[at]
    if first < 0x80:
        return first, at + 1
    end = at + 1 + (first & 0x7F)
    return int.from_bytes(data[at + 1 : end], "big"), end
