"""Stdin, stdout, whose reader may have left before the result is there, and stderr."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from hsmagent.errors import HsmAgentError
from hsmagent.mail.spool import Spool, fill


def source() -> IO[bytes]:
    """Return standard input."""
    if not sys.stdin:
        raise HsmAgentError("standard input is closed")
    return sys.stdin.buffer


def read(path: str, *, sealed: bool = False) -> Spool:
    """Read a file whole; "-" and "" are standard input."""
    spool = Spool(sealed=sealed)
    if path in {"", "-"}:
        fill(spool, source())
    else:
        with Path(path).open("rb") as file:
            fill(spool, file)
    return spool


def reported(program: str, failed: int, work: Callable[[], int]) -> int:
    """Do the work and return its status; on an error, say it on stderr and return `failed`."""
    try:
        return work()
    except HsmAgentError as error:
        warn(program, [str(error)])
    except OSError as error:
        warn(program, [f"{error.filename or 'the message'}: {error.strerror}"])
    return failed


def warn(program: str, warnings: Iterable[str]) -> None:
    """Write each warning to stderr, in a line of its own."""
    for warning in warnings:
        sys.stderr.write(f"{program}: {warning}\n")


class Out:
    """Stdout as a Writer. When its reader hangs up, the rest is dropped, and `finish` tells.

    Raises HsmAgentError when stdout is closed, and OSError for any other failure.
    """

    def __init__(self) -> None:
        if not sys.stdout:
            raise HsmAgentError("standard output is closed")
        self._out = sys.stdout.buffer
        self._gone = False

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        if not self._gone:
            try:
                self._out.write(data)
            except OSError as error:
                self._failed(error)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write every chunk, to its end."""
        for chunk in chunks:
            self.write(chunk)

    def say(self, line: str) -> None:
        """Write a line of text, with escapes for what the terminal's encoding does not have."""
        self.write(f"{line}\n".encode(sys.stdout.encoding, "backslashreplace"))

    def finish(self) -> bool:
        """Flush; False when the reader hung up before it had everything."""
        if not self._gone:
            try:
                self._out.flush()
            except OSError as error:
                self._failed(error)
        return not self._gone

    def _failed(self, error: OSError) -> None:
        self._gone = True
        # Python would try to flush once more as it ends, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise error
