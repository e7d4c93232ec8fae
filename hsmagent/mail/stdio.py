"""Stdin, and writing a finished result to stdout, whose reader may have left."""

import os
import sys
from typing import IO

from hsmagent.errors import HsmAgentError


def source() -> IO[bytes]:
    """Return standard input."""
    if not sys.stdin:
        raise HsmAgentError("standard input is closed")
    return sys.stdin.buffer


class Out:
    """Stdout as a Writer. When the reader hangs up, the rest is dropped and `finish` tells.

    What else goes wrong is raised, as HsmAgentError or OSError.
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
