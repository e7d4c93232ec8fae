"""Bytes that differ from the right ones for certain, where a fixed value may be right by chance."""


def altered(data: bytes) -> bytes:
    """Return `data` with one bit of its last byte changed."""
    return data[:-1] + bytes([data[-1] ^ 1])
