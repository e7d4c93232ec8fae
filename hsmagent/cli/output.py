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
    """Standard error. A failure to write to it is ignored, and does not change the exit status."""

    _drawn = False

    def write(self, text: str) -> int:
        """Write, after erasing the line that was drawn."""
        try:
            if self._drawn:
                self._drawn = False
                super().write(_ERASE)
            return super().write(text)
        except OSError:
            return len(text)

    def draw(self, line: str) -> None:
        """Draw a line that the next one replaces; "" erases it."""
        self.write(line)
        self.flush()
        self._drawn = bool(line)

    def flush(self) -> None:
        """Flush, as far as that succeeds."""
        try:
            super().flush()
        except OSError:
            return


def prepare() -> None:
    """Make the standard streams fit for use. Every program begins with it."""
    # Descriptors 0 to 2 that the caller closed lead to /dev/null: a socket of ours that got such a
    # number would be read and written as if it were the terminal.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    # A character that the locale's encoding lacks is printed as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    raw = open(_STDERR, "wb", closefd=False)  # noqa: SIM115 - it is open to the end
    sys.stderr = _Complaints(raw, encoding, "backslashreplace", line_buffering=True)


def write(text: str) -> None:
    """Print and flush, so that a failure is told here, and not by Python at its exit.

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
    """Return standard error if it is a terminal on which lines can be erased, else None."""
    stderr = sys.stderr
    erases = os.environ.get("TERM", "dumb") != "dumb"
    return stderr if erases and isinstance(stderr, _Complaints) and stderr.isatty() else None


def on_terminal() -> bool:
    """Whether what is printed is shown on a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def drop() -> None:
    """Discard what is still to be written to standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(program: str, text: str) -> int:
    """Print a program's help or version. Return the exit status."""
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
    """Flush the output and end the process.

    os._exit: at a usual exit Python would take all its modules apart, for a seventh of the time of
    a signature.
    """
    if sys.stdout:
        try:
            sys.stdout.flush()
        except OSError:
            status = status or 1
    sys.stderr.flush()
    os._exit(status)
