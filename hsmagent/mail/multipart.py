"""Multipart bodies (RFC 2046, section 5.1): where each part lies."""

from collections.abc import Iterator

from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.mime import Entity
from hsmagent.mail.spool import CHUNK, Region

MAX_PARTS = 10_000
_BOUNDARY_MAX = 70
_LINE_MAX = 1024


def boundary(entity: Entity) -> bytes:
    """Return the boundary parameter as it stands in the body, without the two dashes."""
    value = entity.content_type.get("boundary")
    if not 1 <= len(value) <= _BOUNDARY_MAX or not value.isascii() or not value.isprintable():
        raise Malformed("a multipart without a usable boundary")
    return value.encode("ascii")


def parts(entity: Entity) -> list[Region]:
    """Return the parts, each without the line break that belongs to the boundary after it.

    The closing boundary must be there: without it nobody knows where the last part ends.
    """
    found: list[Region] = []
    start: int | None = None
    for line, after, last in _delimiters(entity.body, boundary(entity)):
        if start is not None:
            found.append(Region(entity.body.source, start, max(start, line)))
        if last:
            return found
        if len(found) >= MAX_PARTS:
            raise Malformed(f"a multipart with more than {MAX_PARTS} parts")
        start = after
    raise Malformed("a multipart without its closing boundary")


def _delimiters(body: Region, mark: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield for each delimiter: where the part before it ends, the next one starts, is it last."""
    dashes = b"--" + mark
    for position in _line_starts(body, dashes):
        rest = body.source.read_at(position, min(_LINE_MAX, body.end - position))[len(dashes) :]
        line, newline, _ = rest.partition(b"\n")
        last = line.startswith(b"--")
        # Only white space may follow: "--b" is no delimiter in a line "--bc".
        if (line[2:] if last else line).strip(b" \t\r"):
            continue
        after = position + len(dashes) + len(line) + len(newline)
        before = body.source.read_at(max(body.start, position - 2), min(2, position - body.start))
        yield position - (2 if before == b"\r\n" else len(before[-1:])), after, last


def _line_starts(body: Region, text: bytes) -> Iterator[int]:
    """Yield every offset at which a line begins with `text`."""
    if body.source.read_at(body.start, min(len(text), body.size)) == text:
        yield body.start
    needle = b"\n" + text
    offset = body.start
    while offset < body.end:
        data = body.source.read_at(offset, min(CHUNK, body.end - offset))
        at = data.find(needle)
        while at >= 0:
            yield offset + at + 1
            at = data.find(needle, at + 1)
        if offset + len(data) >= body.end:
            return
        offset += max(1, len(data) - len(needle) + 1)
