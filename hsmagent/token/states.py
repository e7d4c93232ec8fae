"""What can become of a worker and of a token: every state, every event, and what follows.

The rest of this package keeps no flags of its own. It says what happened, by `Life.take`, and does
what the state that follows calls for. Two kinds of things have a `Life`:

**A place for a worker** (`member.Member`; a pool has one or several). It is DOWN until a process is
spawned, and STARTING until that has loaded the module and looked at its tokens. Only a worker that
is UP gets operations and PINs. When the last login to a hardware token is given up, the worker is
RETIRING: C_Logout alone does not reach every card, so the process ends, unless another token was
logged in to meanwhile. Whatever ends the process leads to DOWN, and a new one is spawned; only for
a module that cannot be loaded (BROKEN) none is, until somebody asks. CLOSED is final.

**A token** (`token.Token`), once it was seen. OPEN means that there is a login which may be used;
in every other state no worker keeps one: a worker that still has one is told to C_Logout. C_Login
is slow, and much may happen before the token has answered:

- A PIN is wanted only until the next LOGOUT. If the screen was locked while its C_Login was under
  way, that counts as OVERTAKEN, not as ACCEPTED, and is undone.
- A login that is under way when an older one ends (LOST, EXPIRED) is still wanted.
- A token may be unplugged and put back: then its ACCEPTED comes before the look that says SEEN.

The PIN's state, and what a look last told of a token, are facts about it and not states here.
A row names the events that change the state; every other event leaves it as it is. Such events do
come: an answer that was on its way, a second logout.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Generic, TypeVar


class WorkerState(Enum):
    """A place for a worker."""

    DOWN = auto()  # no process
    STARTING = auto()  # a process that has not looked at its tokens
    UP = auto()
    RETIRING = auto()  # it is logging out of its last login, and ends then
    BROKEN = auto()  # its module cannot be loaded
    CLOSED = auto()


class WorkerEvent(Enum):
    """What happens to a place for a worker."""

    SPAWNED = auto()
    UNFIT = auto()  # its process says that it cannot load the module
    LOOKED = auto()  # it has told which tokens it sees
    LAST_LOGOUT = auto()  # it is told to give up its last login, to a hardware token
    KEPT = auto()  # it has given that up, and there is another login by now
    DIED = auto()
    CLOSE = auto()


class TokenState(Enum):
    """A token that was seen at least once."""

    ABSENT = auto()
    LOCKED = auto()  # there, and nobody is logged in
    OPEN = auto()  # logged in on at least one worker


class TokenEvent(Enum):
    """What happens to a token."""

    SEEN = auto()
    REMOVED = auto()
    ACCEPTED = auto()  # C_Login succeeded
    OVERTAKEN = auto()  # a PIN was under way when the login was given up
    LOGOUT = auto()  # somebody here gives the login up
    LOST = auto()  # the login ended on the token, or with the last worker that had it
    EXPIRED = auto()


State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Table = Mapping[State, Mapping[Event, State]]

WORKER: Table[WorkerState, WorkerEvent] = {
    WorkerState.DOWN: {
        WorkerEvent.SPAWNED: WorkerState.STARTING,
        WorkerEvent.CLOSE: WorkerState.CLOSED,
    },
    WorkerState.STARTING: {
        WorkerEvent.UNFIT: WorkerState.BROKEN,
        WorkerEvent.LOOKED: WorkerState.UP,
        WorkerEvent.DIED: WorkerState.DOWN,
        WorkerEvent.CLOSE: WorkerState.CLOSED,
    },
    WorkerState.UP: {
        WorkerEvent.LAST_LOGOUT: WorkerState.RETIRING,
        WorkerEvent.DIED: WorkerState.DOWN,
        WorkerEvent.CLOSE: WorkerState.CLOSED,
    },
    WorkerState.RETIRING: {
        WorkerEvent.KEPT: WorkerState.UP,
        WorkerEvent.DIED: WorkerState.DOWN,
        WorkerEvent.CLOSE: WorkerState.CLOSED,
    },
    WorkerState.BROKEN: {
        WorkerEvent.SPAWNED: WorkerState.STARTING,
        WorkerEvent.CLOSE: WorkerState.CLOSED,
    },
    WorkerState.CLOSED: {},
}

TOKEN: Table[TokenState, TokenEvent] = {
    TokenState.ABSENT: {
        TokenEvent.SEEN: TokenState.LOCKED,
        TokenEvent.ACCEPTED: TokenState.OPEN,
    },
    TokenState.LOCKED: {
        TokenEvent.REMOVED: TokenState.ABSENT,
        TokenEvent.ACCEPTED: TokenState.OPEN,
    },
    TokenState.OPEN: {
        TokenEvent.REMOVED: TokenState.ABSENT,
        TokenEvent.OVERTAKEN: TokenState.LOCKED,
        TokenEvent.LOGOUT: TokenState.LOCKED,
        TokenEvent.LOST: TokenState.LOCKED,
        TokenEvent.EXPIRED: TokenState.LOCKED,
    },
}


class Life(Generic[State, Event]):
    """Where one thing stands in its table."""

    __slots__ = ("_table", "state")

    def __init__(self, table: Table[State, Event], state: State) -> None:
        self._table = table
        self.state = state

    def take(self, event: Event) -> bool:
        """Go to the state that follows. Return whether it differs from the one before."""
        before = self.state
        self.state = self._table[before].get(event, before)
        return self.state is not before
