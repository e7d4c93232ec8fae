"""Assuan, as far as pinentry speaks it: lines of less than 1000 bytes, each with one answer.

A PIN arrives in a line `D …`; the buffers that it passes through are wiped.
"""

from dataclasses import dataclass

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
    """What the person typed; its reader wipes it."""

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
        raise ProtocolError("pinentry sent a line that Assuan does not know")
    except ValueError as error:
        raise ProtocolError("pinentry sent a broken line") from error
    finally:
        wipe(line)


def _unquote(line: bytearray) -> bytearray:
    """Undo the percent-encoding of a data line."""
    value = bytearray(len(line))  # no larger ever, so that it is never moved
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
    """Cuts what arrives into lines. It arrives in `room`, and `arrived` says how much of it."""

    def __init__(self) -> None:
        self._buffer = bytearray(2 * LONGEST_LINE)
        self._end = 0

    @property
    def room(self) -> memoryview:
        """Where to put what arrives next. Raises ProtocolError when a line is too long."""
        if self._end == len(self._buffer):
            raise ProtocolError("pinentry sent too long a line")
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
