"""Whose frame is answered next: processes take turns, however many connections and frames each has.

Frames are answered in turn, one at least and else for a SLICE; then the loop looks at everything
else. So who asks while another process floods us waits, in each turn of the loop that his request
takes, for a slice or for one frame of that other process: for a signature by an added RSA key at
the longest.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from hsmagent.model import Clock

SLICE = 0.0001  # seconds

Turn = Callable[[], None]
"""Answers one frame."""


class Turns:
    """The frames of all connections that wait to be answered, in a row for each process.

    connections: how many there are. While there is but one, nobody can be kept waiting, so that
    its next frame is not held back for a turn of the loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.connections = 0
        self._rows: dict[int, deque[Turn]] = {}  # the process whose turn is next comes first
        self._taken = False

    def take(self, process: int, turn: Turn) -> None:
        """Have a frame answered: now, or when it is this process's turn."""
        if self._taken:
            self._rows.setdefault(process, deque()).append(turn)
            return
        self._taken = True
        try:
            turn()
        finally:
            if self._rows or self.connections > 1:
                asyncio.get_running_loop().call_soon(self._next)
            else:
                self._taken = False

    def _next(self) -> None:
        """Answer those who wait, until the slice is over."""
        over = self._clock() + SLICE
        try:
            while self._rows:
                self._pop()()
                if self._clock() >= over:
                    return
        finally:
            if self._rows:
                asyncio.get_running_loop().call_soon(self._next)
            else:
                self._taken = False

    def _pop(self) -> Turn:
        process = next(iter(self._rows))
        row = self._rows.pop(process)
        turn = row.popleft()
        if row:
            self._rows[process] = row  # behind the others
        return turn
