"""Where our programs speak: results on standard output, what is wrong on standard error.

Either may be closed, full, or read by somebody who has left. Imports next to nothing.
"""

import io
import os
import sys

from hsmagent.errors import HsmAgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_STDERR = 2


_ERASE = "\r\x1b[K"  # ECMA-48: EL


class _Complaints(io.TextIOWrapper):
    """Standard error: what cannot be said there changes nothing, least of all the exit status."""

    _drawn = False

    def write(self, text: str) -> int:
        """Write what can be written, in the place of what was drawn."""
        try:
            if self._drawn:
                self._drawn = False
                super().write(_ERASE)
            return super().write(text)
        except OSError:
            return len(text)

    def draw(self, line: str) -> None:
        """Write a line that the next one takes the place of; "" takes the last one away."""
        self.write(line)
        self.flush()
        self._drawn = bool(line)

    def flush(self) -> None:
        """Write what can be written."""
        try:
            super().flush()
        except OSError:
            return


def prepare() -> None:
    """Make the standard streams fit for use. Every program begins with it."""
    # What the caller closed is taken: a socket of ours in its place would be read from, or written
    # to, as if it were the terminal.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    # In a locale without UTF-8 a letter that it lacks must be neither a traceback nor lost.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    raw = open(_STDERR, "wb", closefd=False)  # noqa: SIM115 - it is open to the end
    sys.stderr = _Complaints(raw, encoding, "backslashreplace", line_buffering=True)


def write(text: str) -> None:
    """Print, and flush: what goes wrong is told here, and not by Python while it leaves.

    Raises HsmAgentError, and BrokenPipeError when the reader has left: `drop` the output then.
    """
    if text and sys.stdout is None:
        raise HsmAgentError("standard output is closed")
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop()
        raise HsmAgentError(f"the output cannot be written: {error.strerror}") from None


def canvas() -> _Complaints | None:
    """Return standard error where lines can be drawn on it: it is a terminal that erases."""
    stderr = sys.stderr
    erases = os.environ.get("TERM", "dumb") != "dumb"
    return stderr if erases and isinstance(stderr, _Complaints) and stderr.isatty() else None


def on_terminal() -> bool:
    """Whether what is printed is shown on a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def drop() -> None:
    """Let what is still to be written go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(program: str, text: str) -> int:
    """Print what a program says of itself. Return its exit status."""
    try:
        write(text)
    except BrokenPipeError:
        drop()
        return 1
    except HsmAgentError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0


def leave(status: int) -> "NoReturn":
    """End the process, as every program does that has written what it had to write.

    At once: Python would take all its modules apart, a seventh of the time of a signature.
    """
    if sys.stdout:
        try:
            sys.stdout.flush()
        except OSError:
            status = status or 1
    sys.stderr.flush()
    os._exit(status)
