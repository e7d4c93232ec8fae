"""A rate limit: at most so many events in so many seconds."""

from collections import deque

from hsmagent.model import Clock


class RateLimit:
    """Admits `times` events in any window of `seconds`."""

    def __init__(self, times: int, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._admitted: deque[float] = deque(maxlen=times)

    def admit(self) -> bool:
        """Whether one more event may happen now; counts it when it may."""
        now = self._clock()
        full = len(self._admitted) == self._admitted.maxlen
        if full and now - self._admitted[0] < self._seconds:
            return False
        self._admitted.append(now)
        return True
