"""What a pool holds: members, each the place of one worker, and the calls that wait for one."""

from dataclasses import dataclass, field

from hsmagent import tasks
from hsmagent.model import TokenId
from hsmagent.token.states import WORKER, Life, WorkerEvent, WorkerState
from hsmagent.worker.link import Link
from hsmagent.worker.messages import KeyUse, Reply

_UP = WorkerState.UP  # looked up once: in the enum it would take a call for each signature


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a module may take, in seconds, before its worker is killed.

    An RSA-4096 signature takes a card seconds, and reading all objects of a card many seconds; at a
    PIN pad or a touch button a person acts. A logout has a short deadline, since the end of the
    worker is a logout, too.
    """

    start: float = 20.0
    look: float = 30.0
    poll: float = 10.0
    login: float = 30.0
    logout: float = 5.0
    pin_pad: float = 90.0
    operate: float = 45.0
    close: float = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker sees a token: the slot, and the TokenInfo.identity that it must have at login.

    hardware: the slot is a reader or a device of its own.
    """

    slot: int
    identity: bytes
    hardware: bool


@dataclass(slots=True)
class Call:
    """A private-key operation that waits or is under way: of the token, what the worker is told."""

    token: TokenId
    needs_login: bool
    use: KeyUse
    data: bytes
    pin: bytearray | None
    seconds: float
    reply: tasks.Reply[Reply]
    member: "Member | None" = None


@dataclass(slots=True, eq=False)
class Member:
    """One place for a worker in the pool; the worker in it may be replaced.

    life: see `states`. places: the tokens that its worker sees. logins: those it is logged in to.
    deaths: how many workers in a row died young. born: when the worker was spawned (loop time).
    stale: the worker may show what has changed since, and is to be replaced.
    """

    link: Link | None = None
    places: dict[TokenId, Place] = field(default_factory=dict)
    logins: set[TokenId] = field(default_factory=set)
    life: Life[WorkerState, WorkerEvent] = field(
        default_factory=lambda: Life(WORKER, WorkerState.DOWN)
    )
    deaths: int = 0
    stale: bool = False
    born: float = 0.0

    @property
    def up(self) -> bool:
        """Whether it takes operations and PINs."""
        return self.life.state is _UP

    @property
    def in_use(self) -> bool:
        """Whether a login or a request would be lost if its worker ended."""
        return bool(self.logins or (self.link is not None and self.link.depth))

    @property
    def settled(self) -> bool:
        """Whether its worker is up or cannot be started; in other states it pays to wait."""
        return self.life.state in {WorkerState.UP, WorkerState.BROKEN}

    def sees(self, token: TokenId) -> bool:
        """Whether a PIN or an operation for that token may go here."""
        return self.life.state is _UP and token in self.places

    def slot_for(self, call: "Call") -> int | None:
        """Return the slot where an operation could run here, or None if it could not."""
        place = self.places.get(call.token)
        if place is None or self.life.state is not _UP:
            return None
        if call.needs_login and call.token not in self.logins:
            return None
        return place.slot
