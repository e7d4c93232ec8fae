"""What a test may turn on a card: speed, faults, and a log of what was asked."""

from collections import Counter
from dataclasses import dataclass, field

from hsmagent.schsm.apdu import Command
from tests.parts.token.card.answer import Answer


class Unplugged(Exception):
    """The card is pulled out in the middle of a command."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One logged command. Neither its data nor the answer's: there may be a PIN in it."""

    ins: int
    p1: int
    p2: int
    length: int
    sw: int


@dataclass(slots=True)
class Knobs:
    """Faults and delays, by instruction, and times in seconds.

    - `every`, `latency`: to wait before any command, and before those of one instruction.
    - `rsa`, `ec`: to wait for an operation with a private key of that kind.
    - `override`: (status word, how often): answered instead of carrying the command out. The
      driver repeats a failed SIGN once by itself: a fault must come twice to be seen.
    - `unplug_at`: the card is gone at the command of this number (1 is the next one).
    """

    every: float = 0.0
    latency: dict[int, float] = field(default_factory=dict)
    rsa: float = 0.0
    ec: float = 0.0
    override: dict[int, tuple[int, int]] = field(default_factory=dict)
    unplug_at: dict[int, int] = field(default_factory=dict)
    log: list[Exchange] = field(default_factory=list)

    def genuine_speed(self) -> None:
        """Take the time of a real SmartCard-HSM with RSA-2048 and P-256 keys."""
        self.every = 0.010
        self.rsa = 0.600
        self.ec = 0.170

    def before(self, command: Command) -> float:
        """Apply the faults that are due; returns how long to wait."""
        ins = command.ins
        if ins in self.unplug_at:
            self.unplug_at[ins] -= 1
            if not self.unplug_at[ins]:
                del self.unplug_at[ins]
                raise Unplugged
        sw, times = self.override.get(ins, (0, 0))
        if times:
            self.override[ins] = (sw, times - 1)
            raise Answer(sw)
        return self.every + self.latency.get(ins, 0.0)

    def note(self, command: Command, sw: int) -> None:
        """Log one exchange."""
        self.log.append(Exchange(command.ins, command.p1, command.p2, len(command.data), sw))

    def count(self) -> Counter[int]:
        """Return how often each instruction was asked."""
        return Counter(exchange.ins for exchange in self.log)
