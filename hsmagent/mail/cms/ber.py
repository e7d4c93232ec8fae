"""A reader for the outer layers of CMS: BER with content of any size, in linear time.

Messages arrive in definite or indefinite length, their content in one piece or in thousands. The
reader walks the structure over a Source, never holds the content, and returns each small element
as bytes, which asn1crypto may then read. Nesting, the number of chunks and the size of every
element are bounded; whatever is not well-formed raises Malformed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hsmagent.errors import UsageError
from hsmagent.mail.spool import Memory, Region, Source

BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
INTEGER = 0x02
SEQUENCE = 0x30
SET = 0x31
KEY_IDENTIFIER = ENCRYPTED_CONTENT = 0x80  # [0] IMPLICIT OCTET STRING
CONSTRUCTED = 0x20

MAX_DEPTH = 32
MAX_CHUNKS = 1_000_000
_HEADER_MAX = 2 + 8
_WINDOW = 4096
_HIGH_TAG = 0x1F  # a tag number that needs more octets; CMS has none
_END_OF_CONTENTS = b"\0\0"


def context(number: int) -> int:
    """Return the identifier octet of the constructed tag `[number]`."""
    return 0xA0 | number


def contents(element: bytes) -> bytes:
    """Return what a primitive element holds, as Reader.element gave it."""
    first = element[1]
    return element[2 + (first & 0x7F) :] if first & 0x80 else element[2:]


class Malformed(UsageError):
    """A message or a part of one is not the structure that it claims to be."""


# What asn1crypto raises on bytes that are not what they should be (found by fuzzing).
ASN1_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class Header(NamedTuple):
    """One identifier and length. `end` is None for the indefinite form."""

    tag: int
    body: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Content:
    """An OCTET STRING somewhere in a Source, in one piece or in chunks; `tag` as it was found."""

    source: Source
    position: int
    tag: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes; can be called again."""
        for start, end in Reader(self.source, self.position).segments(self.tag):
            yield from Region(self.source, start, end).chunks()


class Reader:
    """Walks one BER value. `enter` and `leave` go down and up, `element` takes the next whole."""

    def __init__(self, source: Source, position: int = 0) -> None:
        self._source = source
        self._position = position
        self._ends: list[int | None] = []
        self._window = b""
        self._window_at = 0

    def peek(self) -> int | None:
        """Return the next identifier octet, or None at the end of what was entered."""
        if self._at_end():
            return None
        return self._header().tag

    def enter(self, tag: int, what: str) -> None:
        """Go into the next element, which must be constructed and have this tag."""
        header = self._expect(tag, what)
        if len(self._ends) >= MAX_DEPTH:
            raise Malformed(f"{what}: nested too deeply")
        self._ends.append(header.end)
        self._position = header.body

    def leave(self, what: str) -> None:
        """Go back up; the element must have been read to its end."""
        if not self._at_end():
            raise Malformed(f"{what} holds more than it should")
        if self._ends.pop() is None:
            self._position += 2
            if self._position > self._limit():
                raise Malformed(f"{what} is longer than what holds it")

    def element(self, limit: int, what: str, tag: int | None = None) -> bytes:
        """Return the next element with its header, at most `limit` bytes."""
        header = self._header() if tag is None else self._expect(tag, what)
        start = self._position
        end = self._end_of(header, what, start + limit)
        if end - start > limit:
            raise Malformed(f"{what} has {end - start} bytes; {limit} are allowed")
        self._position = end
        return self._source.read_at(start, end - start)

    def elements(self, limit: int, many: int, what: str) -> Iterator[bytes]:
        """Yield what is left of the element that was entered: at most `many` of `limit` bytes."""
        while self.peek() is not None:
            if many == 0:
                raise Malformed(f"too many of {what}")
            many -= 1
            yield self.element(limit, what)

    def content(self, tag: int, what: str) -> Content:
        """Step over an OCTET STRING (tag 0x04, or an implicit 0x80 | n) and say where it is."""
        position, found = self._position, self.peek()
        if found not in (tag, tag | CONSTRUCTED):
            raise Malformed(f"{what} is missing")
        size = sum(end - start for start, end in self.segments(found))
        return Content(self._source, position, found, size)

    def octets(self, limit: int, what: str, tag: int = OCTET_STRING) -> bytes:
        """Return the bytes of an OCTET STRING (see `content`), at most `limit`."""
        found = self.content(tag, what)
        if found.size > limit:
            raise Malformed(f"{what} has {found.size} bytes; {limit} are allowed")
        return b"".join(found.chunks())

    def segments(self, tag: int) -> Iterator[tuple[int, int]]:
        """Yield where the bytes of the OCTET STRING that comes next lie, and step over it."""
        if not tag & CONSTRUCTED:
            header = self._header()
            if header.end is None:
                raise Malformed("a primitive element without a length")
            self._position = header.end
            yield header.body, header.end
            return
        self.enter(tag, "the content")
        depth, chunks = 1, 0
        while depth:
            inner = self.peek()
            if inner is None:
                self.leave("the content")
                depth -= 1
            elif inner == OCTET_STRING | CONSTRUCTED:
                self.enter(inner, "the content")
                depth += 1
            elif inner == OCTET_STRING:
                chunks += 1
                if chunks > MAX_CHUNKS:
                    raise Malformed("the content comes in too many pieces")
                yield from self.segments(inner)
            else:
                raise Malformed("the content is not an octet string")

    def _at_end(self) -> bool:
        if not self._ends:
            return self._position >= self._source.size
        end = self._ends[-1]
        if end is None:
            return self._bytes(2) == _END_OF_CONTENTS
        return self._position >= end

    def _limit(self) -> int:
        return next((end for end in reversed(self._ends) if end is not None), self._source.size)

    def _expect(self, tag: int, what: str) -> Header:
        if self._at_end():
            raise Malformed(f"{what} is missing")
        header = self._header()
        if header.tag != tag:
            raise Malformed(f"{what} is missing: found tag 0x{header.tag:02x}")
        return header

    def _bytes(self, count: int) -> bytes:
        at = self._position - self._window_at
        if not (at >= 0 and at + count <= len(self._window)):
            self._window = self._source.read_at(self._position, _WINDOW)
            self._window_at, at = self._position, 0
        return self._window[at : at + count]

    def _header(self) -> Header:
        octets = self._bytes(_HEADER_MAX)
        if len(octets) < 2:  # noqa: PLR2004 (identifier and length)
            raise Malformed("the structure is cut short")
        tag, first = octets[0], octets[1]
        if tag & _HIGH_TAG == _HIGH_TAG or tag == 0:
            raise Malformed(f"tag 0x{tag:02x} has no place here")
        if first == 0x80:  # noqa: PLR2004 (the indefinite form)
            if not tag & CONSTRUCTED:
                raise Malformed("a primitive element without a length")
            return Header(tag, self._position + 2, None)
        count = first & 0x7F if first & 0x80 else 0
        if count > 8 or len(octets) < 2 + count:  # noqa: PLR2004 (a 64-bit length)
            raise Malformed("the structure is cut short")
        length = int.from_bytes(octets[2 : 2 + count], "big") if count else first
        body = self._position + 2 + count
        if body + length > self._limit():
            raise Malformed("an element is longer than what holds it")
        return Header(tag, body, body + length)

    def _end_of(self, header: Header, what: str, bound: int) -> int:
        """Return where an element ends; walks an indefinite one, not far beyond `bound`."""
        if header.end is not None:
            return header.end
        walker = Reader(self._source, self._position)
        walker._ends = [self._limit()]
        walker.enter(header.tag, what)
        while len(walker._ends) > 1 and walker._position <= bound:
            inner = walker.peek()
            if inner is None:
                walker.leave(what)
                continue
            found = walker._header()
            if found.end is None:
                walker.enter(inner, what)
            else:
                walker._position = found.end
        return walker._position


def inside(element: bytes, what: str, tag: int = SEQUENCE) -> Reader:
    """Return a reader that has entered an element, which must have this tag."""
    reader = Reader(Memory(element))
    reader.enter(tag, what)
    return reader


def octets(element: bytes, what: str, tag: int = OCTET_STRING) -> bytes:
    """Return the bytes of an OCTET STRING, or of another primitive element with this tag."""
    return Reader(Memory(element)).octets(len(element), what, tag)
