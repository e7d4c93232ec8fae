"""Assuan (the manual of libassuan): commands and replies, in lines of less than 1000 bytes.

We are the client of pinentry, and the server of GnuPG's agent. A PIN arrives in a line `D …`; the
buffers that it passes through are wiped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe

LONGEST_LINE = 1000  # with its end, says libassuan

_PERCENT = ord("%")


@dataclass(frozen=True, slots=True)
class Ok:
    """The command succeeded."""


@dataclass(frozen=True, slots=True)
class Err:
    """The command failed. `code` is libgpg-error's, without the source in its upper bits."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Data:
    """What the person typed. Whoever reads it wipes it."""

    value: bytearray


@dataclass(frozen=True, slots=True)
class Other:
    """A status line or a comment."""


Reply = Ok | Err | Data | Other


def command(name: str, argument: str = "") -> bytes:
    """Write a command line; an argument that is too long loses its end."""
    line = name.encode()
    if argument:
        line += b" "
    for character in argument:
        quoted = b"%%%02X" % ord(character) if character in "%\n\r" else character.encode()
        if len(line) + len(quoted) > LONGEST_LINE - 2:
            break
        line += quoted
    return line + b"\n"


def parse(line: bytearray) -> Reply:
    """Read one line, and wipe it. Raises ProtocolError."""
    try:
        if line.startswith(b"D "):
            return Data(_unquote(line))
        word, _, rest = bytes(line).partition(b" ")
        match word:
            case b"OK":
                return Ok()
            case b"ERR":
                number, _, text = rest.partition(b" ")
                return Err(int(number) & 0xFFFF, text.decode("utf-8", "replace"))
            case b"S" | b"" | b"#":
                return Other()
        raise ProtocolError("a line that Assuan does not know")
    except ValueError as error:
        raise ProtocolError("a broken line of Assuan") from error
    finally:
        wipe(line)


# -- the server's side -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A command as a server reads it: its name in upper case, its options, the words after them.

    options: "--hash=sha256" is "hash" with "sha256", "--force" is "force" with "".
    """

    name: str
    options: Mapping[str, str]
    words: tuple[str, ...]

    @property
    def last(self) -> str:
        """The last word, or ""."""
        return self.words[-1] if self.words else ""


def request(line: bytes | bytearray) -> Request:
    """Read a command; "--" ends the options. Bytes that are not UTF-8 become U+FFFD."""
    name, *rest = bytes(line).decode("utf-8", "replace").split() or [""]
    options = dict[str, str]()
    while rest and rest[0].startswith("--"):
        option, _, value = rest.pop(0).removeprefix("--").partition("=")
        if not option:
            break
        options[option] = value
    return Request(name.upper(), MappingProxyType(options), tuple(rest))


def ok(comment: str = "") -> bytes:
    """Write the end of a command that succeeded."""
    return f"OK {comment}".rstrip().encode() + b"\n"


def err(code: int, text: str, source: int) -> bytes:
    """Write the end of a command that failed; code and source are libgpg-error's."""
    return f"ERR {source << 24 | code} {text}".encode() + b"\n"


def status(keyword: str, *values: str) -> bytes:
    """Write a status line."""
    return " ".join(("S", keyword, *values)).encode() + b"\n"


def data(value: bytes) -> bytes:
    """Write data: as many lines as it takes, none of which cuts a quoted byte in two."""
    lines, line = [], bytearray(b"D ")
    for byte in value:
        quoted = b"%%%02X" % byte if byte in b"%\r\n" else bytes((byte,))
        if len(line) + len(quoted) > LONGEST_LINE - 1:
            lines.append(bytes(line) + b"\n")
            line = bytearray(b"D ")
        line += quoted
    return b"".join((*lines, bytes(line) + b"\n"))


def _unquote(line: bytearray) -> bytearray:
    """Undo the percent-encoding of a data line."""
    value = bytearray(len(line))  # never grows: growing would leave a copy behind, unwiped
    length, place = 0, len(b"D ")
    while place < len(line):
        value[length] = line[place]
        if line[place] == _PERCENT:
            value[length] = int(line[place + 1 : place + 3].decode("ascii"), 16)
            place += 2
        place += 1
        length += 1
    del value[length:]
    return value


class LineReader:
    """Cuts what arrives into lines.

    The caller reads from its socket into `room`, and tells `arrived` how many bytes that were.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(2 * LONGEST_LINE)
        self._end = 0

    @property
    def room(self) -> memoryview:
        """Where to put what arrives next. Raises ProtocolError when a line is too long."""
        if self._end == len(self._buffer):
            raise ProtocolError("a line that is too long for Assuan")
        return memoryview(self._buffer)[self._end :]

    def arrived(self, count: int) -> None:
        """Take note of `count` bytes in `room`."""
        self._end += count

    def next_line(self) -> bytearray | None:
        """Return the next whole line without its end, for the caller to wipe."""
        end = self._buffer.find(b"\n", 0, self._end)
        if end < 0:
            return None
        line = self._buffer[:end]
        rest = self._buffer[end + 1 : self._end]
        self.wipe()
        self._buffer[: len(rest)] = rest
        self._end = len(rest)
        wipe(rest)
        return line

    def wipe(self) -> None:
        """Forget everything."""
        wipe(self._buffer)
        self._end = 0
