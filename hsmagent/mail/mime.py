"""MIME entities (RFC 2045, RFC 5322): the header, its fields and where the body starts.

If two programs read a message differently, one may show more than the signature covers for the
other. So what is ambiguous is refused: a repeated Content-Type, a boundary that is not there, a
parameter given twice. All of it takes time linear in the size of the message.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hsmagent.errors import UsageError
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.spool import Region

MAX_HEADER = 1024 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
# A parameter and what ends it; or, without a name, nothing but that.
_PARAMETER = re.compile(
    r"""
    [ \t\r\n]*
    (?:
        ([!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+)  [ \t\r\n]* = [ \t\r\n]*
        (?: "((?:[^"\\\r\n]|\\[^\r\n])*)" | ([^\s()<>@,;:\\"\[\]?=]+) )  [ \t\r\n]*
    )?
    (?: ; | \Z )
    """,
    re.VERBOSE,
)
_DISPUTED = re.compile(rb"\r(?!\n)|\0")


@dataclass(frozen=True, slots=True)
class Field:
    """One header field: `name` in lower case, `raw` as it stood, folded and with line ending.

    Where a message ends with the field, and without a line ending, `raw` has one all the same.
    """

    name: str
    raw: bytes

    @property
    def value(self) -> str:
        """What stands after the colon, unfolded."""
        text = self.raw.partition(b":")[2].decode("utf-8", "surrogateescape")
        return re.sub(r"\r?\n(?=[ \t])", "", text).strip()


@dataclass(frozen=True, slots=True)
class ContentType:
    """A Content-Type: `kind` like "text/plain" and the parameters, names in lower case."""

    kind: str
    parameters: dict[str, str]

    def get(self, name: str) -> str:
        """Return a parameter, or ""."""
        return self.parameters.get(name, "")


PLAIN = ContentType("text/plain", {})


@dataclass(frozen=True, slots=True)
class Entity:
    """A header and the region of its body. `region` is both together."""

    fields: tuple[Field, ...]
    region: Region
    body: Region

    def all(self, name: str) -> list[str]:
        """Return the values of every field of this name."""
        return [field.value for field in self.fields if field.name == name]

    def one(self, name: str) -> str:
        """Return the value of a field that may stand once; "" when it is absent."""
        values = self.all(name)
        if len(values) > 1:
            raise Malformed(f"the message has {len(values)} {name.title()} fields")
        return values[0] if values else ""

    @property
    def content_type(self) -> ContentType:
        """The Content-Type; text/plain when there is none."""
        value = self.one("content-type")
        return content_type(value) if value else PLAIN

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding, in lower case; "7bit" when there is none."""
        return self.one("content-transfer-encoding").lower() or "7bit"

    @property
    def is_disputed(self) -> bool:
        """Whether the header holds a bare CR or a NUL, where for some readers a field ends.

        RFC 5322, section 2.2, and RFC 5321, section 2.3.8, allow neither.
        """
        start = self.region.start
        head = self.region.source.read_at(start, self.body.start - start)
        return _DISPUTED.search(head) is not None

    @property
    def newline(self) -> bytes:
        """The line ending that the header uses."""
        start = self.region.source.read_at(self.region.start, 2)
        first = self.fields[0].raw if self.fields else start
        return b"\r\n" if first.endswith(b"\r\n") else b"\n"


def read(region: Region) -> Entity:
    """Split an entity into header and body. Lines end in LF or CRLF."""
    head = region.source.read_at(region.start, min(region.size, MAX_HEADER))
    fields: list[Field] = []
    position = 0
    while position < len(head):
        end = _line_end(head, position)
        if head[position:end] in (b"\n", b"\r\n"):
            return Entity(
                tuple(fields), region, Region(region.source, region.start + end, region.end)
            )
        match = _FIELD.match(head, position, end)
        if match is None:
            if not fields and head.startswith(b"From "):  # an mbox's first line
                position = end
                continue
            if end == MAX_HEADER:
                break  # the limit cuts this field in two
            raise Malformed("this is not a message: no header fields before the first empty line")
        while head[end : end + 1] in (b" ", b"\t"):
            end = _line_end(head, end)
        raw = head[position:end]
        fields.append(
            Field(match.group(1).decode("ascii").lower(), raw if raw[-1:] == b"\n" else raw + b"\n")
        )
        position = end
    if region.size > MAX_HEADER:
        raise Malformed(f"the message's header is larger than {MAX_HEADER >> 20} MiB")
    return Entity(tuple(fields), region, Region(region.source, region.end, region.end))


def raw(fields: Iterable[Field]) -> bytes:
    """Return the fields as they stood, one after the other."""
    return b"".join(field.raw for field in fields)


def undisputed(entity: Entity) -> Entity:
    """Return the entity with a space for each bare CR and NUL of its fields (see is_disputed)."""
    fields = (replace(field, raw=_DISPUTED.sub(b" ", field.raw)) for field in entity.fields)
    return replace(entity, fields=tuple(fields))


def content_type(value: str) -> ContentType:
    """Read a Content-Type or Content-Disposition value (RFC 2045, section 5.1)."""
    text = _without_comments(value)
    kind, _, rest = text.partition(";")
    parameters: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _PARAMETER.match(rest, position)
        if match is None:
            raise Malformed("a Content-Type that cannot be read")
        position = match.end()
        name, quoted, plain = match.groups(default="")
        name = name.lower()
        if name in parameters:
            raise Malformed(f"a Content-Type with two parameters {name!r}")
        if name:
            parameters[name] = plain or re.sub(r"\\(.)", r"\1", quoted)
    return ContentType("".join(kind.lower().split()), parameters)


def _without_comments(value: str) -> str:
    """Drop RFC 822 comments outside quoted strings."""
    kept: list[str] = []
    depth, position, quoted = 0, 0, False
    while position < len(value):
        character = value[position]
        step = 2 if character == "\\" and (quoted or depth) else 1
        if quoted or (depth == 0 and character != "("):
            quoted ^= character == '"' and step == 1
            kept.append(value[position : position + step])
        else:
            depth += (character == "(") - (character == ")")
        position += step
    return "".join(kept)


def _line_end(data: bytes, position: int) -> int:
    found = data.find(b"\n", position)
    return len(data) if found < 0 else found + 1


def header_safe(text: str, what: str) -> str:
    """Return `text` if it may stand in a header: no CR, LF or NUL can start a field of its own."""
    if any(character in text for character in "\r\n\0"):
        raise UsageError(f"{what} holds a line break or NUL, which cannot stand in a header")
    return text
