"""Rate limits: at most so many events in so many seconds, for all or for each process."""

import logging
from collections import deque

from hsmagent.model import Clock

MOST_PROCESSES = 256
LINES, LINES_WINDOW = 20, 60.0


class RateLimit:
    """Admits `times` events in any window of `seconds`."""

    def __init__(self, times: int, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._admitted: deque[float] = deque(maxlen=times)

    def is_full(self) -> bool:
        """Whether no more events may happen now."""
        full = len(self._admitted) == self._admitted.maxlen
        return full and self._clock() - self._admitted[0] < self._seconds

    def admit(self) -> bool:
        """Whether one more event may happen now; counts it when it may."""
        if self.is_full():
            return False
        self._admitted.append(self._clock())
        return True

    def give_back(self) -> None:
        """Do not count the event that was admitted last: it did not happen."""
        self._admitted.pop()


class Budgets:
    """A rate limit for each process, so that one cannot use up what all have."""

    def __init__(self, times: int, seconds: float, clock: Clock) -> None:
        self._times = times
        self._seconds = seconds
        self._clock = clock
        self._of: dict[int, RateLimit] = {}

    def admit(self, process: int) -> bool:
        """Whether one more event of this process may happen now; counts it when it may."""
        budget = self._of.pop(process, None) or RateLimit(self._times, self._seconds, self._clock)
        self._of[process] = budget  # the process that asked last comes last
        if len(self._of) > MOST_PROCESSES:
            del self._of[next(iter(self._of))]
        return budget.admit()

    def give_back(self, process: int) -> None:
        """Do not count this process's event that was admitted last: it did not happen."""
        if process in self._of:
            self._of[process].give_back()


class PeerLog:
    """Warnings that peers provoke: each process has a few a minute, and more are only counted."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._budgets = Budgets(LINES, LINES_WINDOW, clock)
        self._left_out = 0

    def warning(self, process: int, message: str, *values: object) -> None:
        """Log a warning that this process provoked, unless it has had its share."""
        if not self._budgets.admit(process):
            self._left_out += 1
            return
        if self._left_out:
            self._log.warning("%d lines like the following were left out", self._left_out)
            self._left_out = 0
        self._log.warning(message, *values)
