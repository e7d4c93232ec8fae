"""A process's memory, searched for pieces of secret numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

# Bytes of each piece that is looked for. Memory that was freed loses some to the allocator, and so
# whoever looks for whole numbers misses what is left of them.
PIECE = 20
DIGIT_BITS = 30  # of CPython's int, four bytes each


def forms(number: int) -> dict[str, bytes]:
    """Return a number as a format, OpenSSL and CPython would hold it."""
    size = (number.bit_length() + 7) // 8
    mask = (1 << DIGIT_BITS) - 1
    digits = (number >> at & mask for at in range(0, number.bit_length(), DIGIT_BITS))
    return {
        "big-endian": number.to_bytes(size, "big"),
        "little-endian": number.to_bytes(size, "little"),
        "an int": b"".join(digit.to_bytes(4, "little") for digit in digits),
    }


def found(pid: int, secrets: Mapping[str, int]) -> set[tuple[str, str]]:
    """Return which secrets lie in a process's memory, each with its form there."""
    whole = b"\0".join(memory(pid))
    return {
        (name, form)
        for name, number in secrets.items()
        for form, data in forms(number).items()
        for start in {0, (len(data) - PIECE) // 2, len(data) - PIECE}
        if data[start : start + PIECE] in whole
    }


def memory(pid: int) -> Iterator[bytes]:
    """Yield what a process may have written: its mappings for reading and writing."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as whole:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(each, 16) for each in span.split("-"))
                whole.seek(start)
                yield whole.read(end - start)
