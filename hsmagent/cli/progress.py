"""How far long work is: one line on standard error, erased when the work is done.

It shows on a terminal only, and not for work that is over at once.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hsmagent.cli import output
from hsmagent.cli.glance import bar
from hsmagent.model import printable

if TYPE_CHECKING:
    from hsmagent.mail.spool import Source

Tell = Callable[[float | None], None]
"""Takes the part that is done, from 0 to 1; None where it is not known how much there is to do."""

_AFTER, _EVERY = 0.5, 0.1  # seconds
_CELLS = 20
_LINE_WIDTH = 80
_LARGE = 4 << 20  # bytes of a source


@contextmanager
def shown(what: str) -> Iterator[Tell]:
    """Show how far `what` is while the block runs: "Making the key ━━━━──── 50 %"."""
    canvas = output.canvas()
    if canvas is None:
        yield lambda _: None
        return
    try:
        yield _Line(what, canvas.draw).tell
    finally:
        canvas.draw("")


@contextmanager
def watched(source: "Source", what: str, *, printed: bool) -> "Iterator[Source]":
    """Show how far a source has been read; it may be read more than once.

    printed: the result is printed meanwhile. On a terminal the line would get between its lines.
    """
    if source.size < _LARGE or (printed and output.on_terminal()):
        yield source
        return
    with shown(what) as tell:
        yield _Watched(source, tell)


class _Watched:
    """Implements `mail.spool.Source`."""

    def __init__(self, source: "Source", tell: Tell) -> None:
        self._source = source
        self._tell = tell
        self.size = source.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`, and tell."""
        self._tell(offset / self.size)
        return self._source.read_at(offset, count)


class _Line:
    """The line of one piece of work."""

    def __init__(self, what: str, draw: Callable[[str], None]) -> None:
        self._what = what
        self._draw = draw
        self._began = time.monotonic()
        self._next = self._began + _AFTER

    def tell(self, done: float | None) -> None:
        """Draw the line again, if that is due."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        if done is None:
            how_far = f"{now - self._began:.0f} s"
        else:
            part = min(max(done, 0.0), 1.0)
            how_far = f"{''.join(bar(part, _CELLS))} {part:4.0%}"
        room = _columns() - len(how_far) - 2
        self._draw(f"{printable(self._what, room)} {how_far}")


def _columns() -> int:
    """Return how many columns a line may have; a line that wraps cannot be erased."""
    try:
        return max(os.get_terminal_size(sys.stderr.fileno()).columns, 2 * _CELLS)
    except OSError:
        return _LINE_WIDTH
