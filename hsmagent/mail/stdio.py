"""Writing a finished result to stdout, whose reader may have left."""

import os
import sys


class Out:
    """Stdout as a Writer. When the reader hangs up, the rest is dropped and `finish` tells."""

    def __init__(self) -> None:
        self._out = sys.stdout.buffer
        self._gone = False

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        if not self._gone:
            try:
                self._out.write(data)
            except BrokenPipeError:
                self._hung_up()

    def finish(self) -> bool:
        """Flush; False when the reader hung up before it had everything."""
        if not self._gone:
            try:
                self._out.flush()
            except BrokenPipeError:
                self._hung_up()
        return not self._gone

    def _hung_up(self) -> None:
        self._gone = True
        # Python would try to flush once more as it ends, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
