"""What a pool holds: a place for each worker, and the calls that wait for one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from hsmagent.model import TokenId
from hsmagent.worker.link import Link
from hsmagent.worker.messages import Operate, Reply


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a module may take, in seconds, before its worker is killed.

    An RSA-4096 signature takes a card seconds, reading all of a card's objects many; at a PIN pad
    or a touch button a person acts.
    """

    start: float = 20.0
    look: float = 30.0
    poll: float = 10.0
    login: float = 30.0
    pin_pad: float = 90.0
    operate: float = 45.0
    close: float = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker sees a token: the slot, and what must still be in it at login.

    hardware: the slot is a reader or a device of its own.
    """

    slot: int
    identity: bytes
    hardware: bool


@dataclass(slots=True)
class Call:
    """A private-key operation that waits or is under way."""

    token: TokenId
    needs_login: bool
    build: Callable[[int], Operate]
    seconds: float
    future: asyncio.Future[Reply]
    member: "Member | None" = None


@dataclass(slots=True, eq=False)
class Member:
    """One place for a worker in the pool; the worker in it may be replaced.

    up: it has loaded the module and looked at the tokens. broken: it could not load it, and is
    not started again until somebody asks to look. retiring: it is logging out, and ends then.
    """

    link: Link | None = None
    places: dict[TokenId, Place] = field(default_factory=dict)
    logins: set[TokenId] = field(default_factory=set)
    up: bool = False
    broken: bool = False
    retiring: bool = False
    deaths: int = 0
    born: float = 0.0

    def slot_for(self, call: "Call") -> int | None:
        """Return the slot where an operation could run here, or None if it could not."""
        place = self.places.get(call.token)
        if place is None or (call.needs_login and call.token not in self.logins):
            return None
        return place.slot
