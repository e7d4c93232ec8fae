"""How long a login may last, and how long it has."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one login, in seconds: unused, and in all."""

    idle: float
    max: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A login's times, by the injected clock."""

    limits: Limits
    started: float
    used: float

    def idle_left(self, now: float) -> float:
        """Seconds until it ends for want of use."""
        return self.used + self.limits.idle - now

    def max_left(self, now: float) -> float:
        """Seconds until it ends in any case."""
        return self.started + self.limits.max - now

    def left(self, now: float) -> float:
        """Seconds until it ends."""
        return min(self.idle_left(now), self.max_left(now))
