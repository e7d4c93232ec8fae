"""The form in which an entity is signed: one that no relay has a reason to change.

RFC 8551, section 3.1: lines end in CRLF, and what is signed is 7-bit clean. Relays also fold long
lines, strip white space at line ends and quote lines that begin with "From ", so text with any of
these goes as quoted-printable and everything else as base64.
"""

import binascii
import re
from base64 import encodebytes
from collections.abc import Iterable, Iterator

from hsmagent.mail import mime, multipart
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.mime import Entity, Field
from hsmagent.mail.spool import Memory, Region, Spool

LINE_MAX = 998  # RFC 5322, section 2.1.1; with the CR, to be on the safe side
MAX_DEPTH = 16
_QP_TEXT_MAX = 2 * 1024 * 1024
_BASE64_LINE = 57  # bytes that make a line of 76 characters
# What relays change, by a byte that each holds: most of a mail has none of these bytes.
_FRAGILE = {b" ": (b"\nFrom ", b" \n", b" \r\n"), b"\t": (b"\t\n", b"\t\r\n"), b"\0": (b"\0",)}
_MARK_MAX = 6  # bytes of such a mark
_FROM = re.compile(rb"^F(?=rom (.{70})?)", re.MULTILINE)
_LINE_SPACE = re.compile(rb"(?<=\S)[ \t]+(?=\r?\n)")
_OPAQUE = ("multipart/signed", "multipart/encrypted")


def crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Turn every LF that has no CR before it into CRLF."""
    for chunk in lf(chunks):
        yield chunk.replace(b"\n", b"\r\n")


def lf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Turn every CRLF into LF; a CR alone stays."""
    held = b""
    for chunk in chunks:
        data = held + chunk if held else chunk
        held = b"\r" if data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)]
        yield _without_cr(data) if b"\r" in data else data
    if held:
        yield held


def _without_cr(data: bytes) -> bytes:
    """Turn CRLF into LF. Where no CR stands alone, dropping every CR does that twice as quickly."""
    bare = data.replace(b"\r", b"")
    if len(data) - len(bare) == data.count(b"\r\n"):
        return bare
    return data.replace(b"\r\n", b"\n")


def is_binary(entity: Entity, depth: int = 0) -> bool:
    """Whether the body is octets, or has a part that is: its line ends must not be touched."""
    if entity.encoding == "binary":
        return True
    if not entity.content_type.kind.startswith("multipart/") or depth >= MAX_DEPTH:
        return False
    return any(is_binary(mime.read(part), depth + 1) for part in multipart.parts(entity))


def in_lines(entity: Entity, newline: bytes) -> Iterator[bytes]:
    """Yield the body, its lines with this ending; one of octets, or a malformed one, as it is."""
    try:
        octets = is_binary(entity)
    except Malformed:
        octets = False
    if octets:
        yield from entity.body.chunks()
        return
    for chunk in lf(entity.body.chunks()):
        yield chunk if newline == b"\n" else chunk.replace(b"\n", newline)


def base64_lines(chunks: Iterable[bytes], newline: bytes = b"\n") -> Iterator[bytes]:
    """Encode in lines of 76 characters."""
    held = b""
    for chunk in chunks:
        data = held + chunk
        whole = len(data) - len(data) % _BASE64_LINE
        held = data[whole:]
        yield encodebytes(data[:whole]).replace(b"\n", newline)
    yield encodebytes(held).replace(b"\n", newline)


def from_base64(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Decode, white space left out; Malformed when it is not base64."""
    held = b""
    for chunk in chunks:
        data = held + _without_space(chunk)
        whole = len(data) & ~3
        held = data[whole:]
        if held and b"=" in data[:whole]:
            raise Malformed(f"{what} is not valid base64")
        yield _decode(data[:whole], what)
    if held:
        raise Malformed(f"{what} is not valid base64: it is cut short")


def _without_space(chunk: bytes) -> bytes:
    data = chunk.replace(b"\n", b"")  # twice as quick as translate, and mostly all that is needed
    odd = b"\r" in data or b" " in data or b"\t" in data
    return data.translate(None, b" \t\r") if odd else data


class Fragile(Exception):
    """A relay has a reason to change this: it is to be written anew."""


def sturdy(region: Region) -> bool:
    """Tell whether no relay has a reason to change this."""
    try:
        for _ in _sturdy_chunks(region):
            pass
    except Fragile:
        return False
    return True


def _sturdy_chunks(region: Region) -> Iterator[bytes]:
    """Yield the chunks, each after a look at it. Raises Fragile."""
    tail, column = b"\n", 0
    for chunk in region.chunks():
        if not chunk.isascii() or _fragile(chunk) or _fragile(tail + chunk[:_MARK_MAX]):
            raise Fragile
        column = _column_after(chunk, column)
        if column < 0:
            raise Fragile
        tail = (tail + chunk[-_MARK_MAX:])[-_MARK_MAX:]
        yield chunk
    if tail.endswith((b" ", b"\t", b"\r")):
        raise Fragile


def _fragile(window: bytes) -> bool:
    for byte, marks in _FRAGILE.items():
        if byte in window and any(mark in window for mark in marks):
            return True
    return b"\r" in window and b"\r" in _without_cr(window)[:-1]


def sendable(region: Region) -> Region:
    """Return a message as it may leave: the same one, unless it holds a bare CR.

    RFC 5322, section 2.2, and RFC 5321, section 2.3.8, allow none: some programs on the way would
    take it for the end of a line. In a field a space takes its place, as it does that of a NUL; a
    body is encoded. A part that somebody signed already is kept, since any change would break that
    signature.
    """
    entity = mime.read(region)
    odd_body = any(b"\r" in chunk for chunk in lf(entity.body.chunks()))
    if not entity.is_disputed and not odd_body:
        return region
    fields, newline = mime.undisputed(entity).fields, entity.newline
    out = Spool(sealed=True)
    if odd_body:
        for piece in prepare(fields, entity.body, newline):
            out.writelines(piece.chunks())
    else:
        _copy(fields, entity.body, out, newline)
    return Region.whole(out)


def prepare(fields: tuple[Field, ...], body: Region, newline: bytes) -> list[Region]:
    """Return the entity that is to be signed, as regions to be read one after the other.

    The body is left where it is when it is sturdy; only otherwise is it written anew.
    """
    entity = Entity(fields, body, body)
    if sturdy(body) and not is_binary(entity):
        return as_it_is(fields, body, newline)
    spool = Spool()
    _write(entity, spool, newline, 0)
    return [Region.whole(spool)]


def as_it_is(fields: tuple[Field, ...], body: Region, newline: bytes) -> list[Region]:
    """Return what `prepare` returns of an entity whose body need not be written anew."""
    return [Region.whole(Memory(_head(fields, newline))), body]


def unless_fragile(fields: tuple[Field, ...], body: Region, newline: bytes) -> Iterator[bytes]:
    """Yield the bytes of `as_it_is`, looked at on the way, so that they need be read only once.

    Raises Fragile, at the end if not before, where the body must be written anew.
    """
    yield _head(fields, newline)
    yield from _sturdy_chunks(body)
    if is_binary(Entity(fields, body, body)):
        raise Fragile


def _write(entity: Entity, out: Spool, newline: bytes, depth: int) -> None:
    kind = entity.content_type.kind
    if depth > MAX_DEPTH:
        raise Malformed(f"parts nested more than {MAX_DEPTH} deep")
    if kind not in _OPAQUE:
        entity = mime.undisputed(entity)
    if kind in _OPAQUE or (sturdy(entity.body) and not is_binary(entity)):
        _copy(entity.fields, entity.body, out, newline)
    elif kind.startswith("multipart/"):
        out.write(_head(_without_encoding(entity), newline))
        mark = b"--" + multipart.boundary(entity)
        for part in multipart.parts(entity):
            out.write(mark + newline)
            _write(mime.read(part), out, newline, depth + 1)
            out.write(newline)
        out.write(mark + b"--" + newline)
    elif kind == "message/rfc822":
        out.write(_head(_without_encoding(entity), newline))
        _write(mime.read(entity.body), out, newline, depth + 1)
    else:
        _leaf(entity, out, newline)


def _leaf(entity: Entity, out: Spool, newline: bytes) -> None:
    text = entity.content_type.kind.startswith("text/") and entity.encoding != "binary"
    chunks = _decoded(entity)
    if text and entity.body.size <= _QP_TEXT_MAX and entity.encoding != "base64":
        encoding = b"quoted-printable"
        body: Iterable[bytes] = (_quoted_printable(b"".join(chunks), newline),)
    else:
        encoding = b"base64"
        body = base64_lines(crlf(chunks) if text else chunks, newline)
    field = Field("content-transfer-encoding", b"Content-Transfer-Encoding: " + encoding + newline)
    out.write(_head((*_without_encoding(entity), field), newline))
    out.writelines(body)


def _decoded(entity: Entity) -> Iterator[bytes]:
    if entity.encoding == "base64":
        return from_base64(entity.body.chunks(), "a part")
    if entity.encoding == "quoted-printable":
        return iter(
            [binascii.a2b_qp(entity.body.read(_QP_TEXT_MAX * 8, "a quoted-printable part"))]
        )
    if entity.encoding in {"7bit", "8bit", "binary"}:
        return entity.body.chunks()
    raise Malformed(f"a part in the unknown encoding {entity.encoding[:40]!r}")


def _copy(fields: tuple[Field, ...], body: Region, out: Spool, newline: bytes) -> None:
    out.write(_head(fields, newline))
    out.writelines(body.chunks())


def _head(fields: tuple[Field, ...], newline: bytes) -> bytes:
    return b"".join(_LINE_SPACE.sub(b"", field.raw) for field in fields) + newline


def _without_encoding(entity: Entity) -> tuple[Field, ...]:
    return tuple(field for field in entity.fields if field.name != "content-transfer-encoding")


def _quoted_printable(text: bytes, newline: bytes) -> bytes:
    """Encode text, "From " at the start of a line and blanks at its end as well."""
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    coded = b"\n".join(binascii.b2a_qp(line, istext=False) for line in lines)
    # A line that would be longer than 76 characters with the =46 in it is broken in two.
    coded = _FROM.sub(lambda start: b"=46=\n" if start[1] else b"=46", coded)
    return coded.replace(b"\n", newline)


def _even_lines(chunk: bytes, column: int) -> int | None:
    """Return what `_column_after` does, where all lines have one length, as in base64; else None.

    It looks at the place where each line must end, instead of searching for the line ends.
    """
    first = chunk.find(b"\n")
    step = chunk.find(b"\n", first + 1) - first
    if first < 0 or not 0 < step <= LINE_MAX or column + first > LINE_MAX:
        return None
    ends = chunk[first::step]
    if ends.count(b"\n") != len(ends):
        return None
    return len(chunk) - 1 - (first + step * (len(ends) - 1))


def _column_after(chunk: bytes, column: int) -> int:
    """Return how far into a line `chunk` ends; -1 when a line in it is longer than LINE_MAX."""
    even = _even_lines(chunk, column)
    if even is not None:
        return even
    start = -column
    while True:
        if len(chunk) - start <= LINE_MAX:
            newline = chunk.rfind(b"\n", max(0, start))
            return len(chunk) - newline - 1 if newline >= 0 else len(chunk) - start
        newline = chunk.rfind(b"\n", max(0, start), start + LINE_MAX + 1)
        if newline < 0:
            return -1
        start = newline + 1


def _decode(data: bytes, what: str) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error as error:
        raise Malformed(f"{what} is not valid base64: {error}") from None
