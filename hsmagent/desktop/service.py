"""org.hsmagent.Agent1: the agent's state for panels and other programs of the desktop.

It shows and it locks; it can ask a person to unlock; it never takes a PIN.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os import getuid
from time import monotonic

from hsmagent import __version__
from hsmagent.bus import PROPERTIES, Bus, BusError, Message, Undo, Variant, errors
from hsmagent.desktop.objects import BusObject, Reply, Values
from hsmagent.errors import HsmAgentError
from hsmagent.limit import RateLimit
from hsmagent.model import Clock, Request, TokenId, TokenStatus, printable

NAME = "org.hsmagent.Agent1"
PATH = "/org/hsmagent/Agent1"
TOKENS = f"{PATH}/token"
AGENT = "org.hsmagent.Agent1"
TOKEN = "org.hsmagent.Token1"  # noqa: S105 - an interface
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
REFUSED = "org.hsmagent.Error.Refused"

# Folders above our objects, for programs that show the tree.
_FOLDERS = {"/": "org", "/org": "hsmagent", "/org/hsmagent": "Agent1"}

# Signals of uses, in so many seconds: a panel needs no more, and they must not slow a signature.
MOST_USES = (20, 1.0)
MAX_UNLOCKS = 8  # calls of Unlock that wait for a dialog at one time


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that called, as the bus knows it."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class Agent:
    """What the service calls.

    statuses: returns every token's status. lock: logs out of tokens. unlock: raises the prompt for
    a token, on behalf of a caller; raises HsmAgentError. wall_clock: seconds since 1970.
    """

    statuses: Callable[[], Sequence[TokenStatus]]
    lock: Callable[[Sequence[TokenId]], Awaitable[None]]
    unlock: Callable[[TokenId, Caller], Awaitable[None]]
    wall_clock: Callable[[], float]


class Service:
    """The agent and its tokens as objects on the session bus."""

    def __init__(self, bus: Bus, agent: Agent, clock: Clock = monotonic) -> None:
        self._bus = bus
        self._agent = agent
        self._uses = RateLimit(*MOST_USES, clock)
        self._shown: dict[str, Values] = {}
        self._undo: dict[str, Undo] = {}
        self._unlocks = 0

    async def start(self) -> None:
        """Export the objects and take our name, now and after each restart of the bus."""
        for folder, child in _FOLDERS.items():
            self._export(folder, BusObject(children=partial(tuple, [child])))
        self._export(
            PATH,
            BusObject(
                methods={
                    (AGENT, "LockAll"): self._lock_all,
                    (OBJECT_MANAGER, "GetManagedObjects"): self._managed_objects,
                },
                properties=lambda: {AGENT: {"Version": Variant("s", __version__)}},
                xml="org.hsmagent.Agent1.xml",
                children=lambda: ["token"],
            ),
        )
        self._export(TOKENS, BusObject(children=self._token_names))
        self.changed()
        await self._bus.request_name(NAME)

    def stop(self) -> None:
        """Take our objects back."""
        for undo in self._undo.values():
            undo()
        self._undo.clear()
        self._shown.clear()

    # -- what happens ------------------------------------------------------------------------

    def changed(self) -> None:
        """Look at the tokens, and signal which were added, have changed or are gone."""
        now = {token_path(status.id): status for status in self._agent.statuses()}
        for path in self._shown.keys() - now.keys():
            del self._shown[path]
            self._undo.pop(path)()
            self._bus.emit(PATH, OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, [TOKEN]])
        for path, status in now.items():
            values = self._values(status)
            before = self._shown.get(path)
            self._shown[path] = values
            if before is None:
                self._export_token(path, status.id)
                body = [path, {TOKEN: values}]
                self._bus.emit(PATH, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)
            else:
                self._signal_changes(path, before, values)

    def used(self, request: Request, outcome: str) -> None:
        """Signal that a key was used, or not: outcome "used", "refused" or "failed".

        Where a program signs in a loop, most uses are left out, to spare the bus.
        """
        if not self._bus.connected or not self._uses.admit():
            return
        token, destination = request.key.token, request.destination
        body = [
            token_path(token) if token else "/",
            printable(request.key.label),
            str(request.purpose.kind),
            request.peer.chain,
            printable(destination.host) if destination else "",
            outcome,
        ]
        self._bus.emit(PATH, AGENT, "KeyUsed", "osssss", body)

    def _signal_changes(self, path: str, before: Values, now: Values) -> None:
        # Every use moves Expiry, so it is not signalled: whoever wants it reads it.
        changed = {
            name: value
            for name, value in now.items()
            if name != "Expiry" and value.value != before[name].value
        }
        if changed:
            body = [TOKEN, changed, []]
            self._bus.emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    # -- objects -----------------------------------------------------------------------------

    def _export(self, path: str, what: BusObject) -> None:
        self._undo[path] = self._bus.export(path, what.answer)

    def _export_token(self, path: str, token: TokenId) -> None:
        one = BusObject(
            methods={
                (TOKEN, "Lock"): partial(self._lock, token),
                (TOKEN, "Unlock"): partial(self._unlock, token),
            },
            properties=lambda: {TOKEN: self._current(token)},
            xml="org.hsmagent.Token1.xml",
        )
        self._export(path, one)

    def _token_names(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self._shown]

    def _current(self, token: TokenId) -> Values:
        for status in self._agent.statuses():
            if status.id == token:
                return self._values(status)
        return self._shown[token_path(token)]

    def _values(self, status: TokenStatus) -> Values:
        unlocked = status.present and (status.logged_in or not status.login_required)
        return {
            "Label": Variant("s", printable(status.id.label)),
            "Serial": Variant("s", printable(status.id.serial)),
            "Model": Variant("s", printable(status.id.model)),
            "Uri": Variant("s", status.id.uri),
            "Present": Variant("b", status.present),
            "Unlocked": Variant("b", unlocked),
            "Expiry": Variant("t", self._expiry(status)),
            "PinState": Variant("s", str(status.pin_state)),
            "PinPad": Variant("b", status.pin_pad),
            "Keys": Variant("u", len(status.keys)),
        }

    def _expiry(self, status: TokenStatus) -> int:
        left = [each for each in (status.idle_left, status.max_left) if each is not None]
        return round(self._agent.wall_clock() + min(left)) if left else 0

    # -- methods -----------------------------------------------------------------------------

    async def _managed_objects(self, _call: Message) -> Reply:
        tokens = {token_path(s.id): {TOKEN: self._values(s)} for s in self._agent.statuses()}
        return "a{oa{sa{sv}}}", [tokens]

    async def _lock_all(self, _call: Message) -> Reply:
        await self._agent.lock([status.id for status in self._agent.statuses()])
        return "", []

    async def _lock(self, token: TokenId, _call: Message) -> Reply:
        await self._agent.lock([token])
        return "", []

    async def _unlock(self, token: TokenId, call: Message) -> Reply:
        if self._unlocks >= MAX_UNLOCKS:
            raise BusError(errors.LIMITS_EXCEEDED, "too many calls of Unlock wait already")
        self._unlocks += 1
        try:
            caller = await self._caller(call.sender)
            await self._while_there(call.sender, self._agent.unlock(token, caller))
        except BusError:
            raise
        except HsmAgentError as error:
            raise BusError(REFUSED, str(error)) from None
        finally:
            self._unlocks -= 1
        return "", []

    async def _caller(self, sender: str) -> Caller:
        """Ask the bus whom a dialog should name; only this user's own programs may raise one."""
        reply = await self._bus.call_bus("GetConnectionCredentials", "s", [sender], "a{sv}")
        caller = Caller(reply[0].get("ProcessID", 0), reply[0].get("UnixUserID", -1))
        if caller.uid != getuid():
            raise BusError(errors.ACCESS_DENIED, "this agent serves another user")
        return caller

    async def _while_there(self, sender: str, unlock: Awaitable[None]) -> None:
        """Await `unlock`, and cancel it when the caller leaves the bus."""
        work = asyncio.ensure_future(unlock)

        def on_owner(owner: str) -> None:
            if not owner:
                work.cancel()

        with ExitStack() as stack:
            stack.callback(work.cancel)
            stack.callback(await self._bus.watch_owner(sender, on_owner))
            await work


def token_path(token: TokenId) -> str:
    """Return a token's object path: the same over re-plugs and restarts."""
    name = f"{token.module}\0{token.uri}"
    return f"{TOKENS}/{hashlib.sha256(name.encode()).hexdigest()[:16]}"
