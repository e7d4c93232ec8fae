"""Writing a finished result to stdout, whose reader may have left."""

import os
import sys
from collections.abc import Iterable


def deliver(chunks: Iterable[bytes]) -> bool:
    """Write everything to stdout; False when the reader hung up first."""
    out = sys.stdout.buffer
    try:
        for chunk in chunks:
            out.write(chunk)
        out.flush()
    except BrokenPipeError:
        # Python would try to flush once more as it ends, and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
