"""Signals and the owners of names: who may tell us what."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from hsmagent.bus.calls import DBUS, DBUS_PATH
from hsmagent.bus.codec import Message
from hsmagent.bus.errors import NAME_HAS_NO_OWNER, BusError
from hsmagent.bus.exports import Undo

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Match:
    """Which signals are meant: those of `sender`, a unique or a well-known name.

    An empty path or arg0 stands for any. The fields are called as in a match rule.
    """

    sender: str
    interface: str
    member: str
    path: str = ""
    arg0: str = ""

    @property
    def rule(self) -> str:
        """The match rule, for AddMatch. Names and paths hold no quotes."""
        parts = {"type": "signal", **asdict(self)}
        return ",".join(f"{key}='{value}'" for key, value in parts.items() if value)

    def fits(self, signal: Message) -> bool:
        """Whether a signal is one of these, its sender aside."""
        return (
            (signal.interface, signal.member) == (self.interface, self.member)
            and self.path in {"", signal.path}
            and (not self.arg0 or list(signal.body[:1]) == [self.arg0])
        )


@dataclass(eq=False, slots=True)
class _Watch:
    """One name that is watched. owner: the one that `told` was told last.

    known: whether the owner was learned from the bus that is there now.
    """

    name: str
    told: Callable[[str], None]
    owner: str | None = None
    known: bool = False

    @property
    def match(self) -> Match:
        return Match(DBUS, DBUS, "NameOwnerChanged", DBUS_PATH, self.name)

    def set_owner(self, owner: str, *, known: bool) -> None:
        self.known = known
        if owner != self.owner:
            self.owner = owner
            tell(self.told, owner)


@dataclass(eq=False, slots=True)
class _Subscription:
    """What one listener wants. watch: the owner of the sender, if that is a well-known name."""

    match: Match
    told: Callable[[Message], None]
    watch: _Watch | None

    def wants(self, signal: Message) -> bool:
        sender = self.match.sender if self.watch is None else self.watch.owner
        return signal.sender == sender and self.match.fits(signal)


class Signals:
    """What we listen to on one bus.

    `call_bus(member, signature, body, returns)` calls the bus itself.
    `connected()` says whether there is a bus to call; without one, everything is only noted
    down for `renew`. `spawn` awaits a call in the background.
    """

    def __init__(
        self,
        call_bus: Callable[[str, str, list[Any], str], Awaitable[list[Any]]],
        connected: Callable[[], bool],
        spawn: Callable[[Awaitable[Any]], None],
    ) -> None:
        self._call_bus = call_bus
        self._connected = connected
        self._spawn = spawn
        self._watches: list[_Watch] = []
        self._subscriptions: list[_Subscription] = []

    async def watch_owner(self, name: str, told: Callable[[str], None]) -> Undo:
        """Tell a name's owner (a unique name, "" for none) now, and whenever the owner changes.

        While there is no bus, nobody owns anything. Raises BusError.
        """
        watch = _Watch(name, told)
        with self._noted(self._watches, watch) as undo:
            await self._start_watch(watch)
        return undo

    async def subscribe(self, match: Match, told: Callable[[Message], None]) -> Undo:
        """Pass on the signals that fit `match` and really come from its sender.

        The sender is checked here, because the bus delivers a signal that a stranger sends
        straight to us whatever our match rules say. Raises BusError.
        """
        unique = match.sender == DBUS or match.sender.startswith(":")
        watch = None if unique else _Watch(match.sender, lambda _owner: None)
        subscription = _Subscription(match, told, watch)
        with self._noted(self._subscriptions, subscription) as undo:
            await self._start_subscription(subscription)
        return undo

    async def renew(self) -> None:
        """Ask a new connection for everything that we listen to. Raises BusError."""
        for subscription in list(self._subscriptions):
            await self._start_subscription(subscription)
        for watch in list(self._watches):
            await self._start_watch(watch)

    def dispatch(self, signal: Message) -> None:
        """Tell whoever wants this signal."""
        for watch in self._all_watches():
            if signal.sender == DBUS and signal.signature == "sss" and watch.match.fits(signal):
                watch.set_owner(signal.body[2], known=True)
        for subscription in list(self._subscriptions):
            if subscription.wants(signal):
                tell(subscription.told, signal)

    def lost(self) -> None:
        """Note that the bus is gone, and with it every owner."""
        for watch in self._all_watches():
            watch.set_owner("", known=False)

    def _all_watches(self) -> list[_Watch]:
        senders = [one.watch for one in self._subscriptions if one.watch is not None]
        return senders + self._watches

    async def _start_subscription(self, subscription: _Subscription) -> None:
        if subscription.watch is not None:
            await self._start_watch(subscription.watch)
        if self._connected():
            await self._call_bus("AddMatch", "s", [subscription.match.rule], "")

    async def _start_watch(self, watch: _Watch) -> None:
        if not self._connected():
            watch.set_owner("", known=False)
            return
        await self._call_bus("AddMatch", "s", [watch.match.rule], "")
        try:
            owner = (await self._call_bus("GetNameOwner", "s", [watch.name], "s"))[0]
        except BusError as error:
            if error.name != NAME_HAS_NO_OWNER:
                raise
            owner = ""
        if not watch.known:  # else a NameOwnerChanged overtook the answer, and knows better
            watch.set_owner(owner, known=True)

    @contextmanager
    def _noted(self, where: list[Any], one: _Watch | _Subscription) -> Iterator[Undo]:
        """Note `one` down, for good unless the block fails; gives the way to forget it."""

        def undo() -> None:
            if one not in where:
                return
            where.remove(one)
            watch = one.watch if isinstance(one, _Subscription) else None
            for each in (one, watch):
                if each is not None and self._connected():
                    self._spawn(self._call_bus("RemoveMatch", "s", [each.match.rule], ""))

        where.append(one)
        try:
            yield undo
        except BaseException:
            undo()
            raise


def tell(told: Callable[..., None], *arguments: object) -> None:
    """Call a callback; what it raises is for the log, the bus goes on."""
    try:
        told(*arguments)
    except Exception:  # noqa: BLE001 - one listener must not stop the rest
        _log.exception("a listener on the bus failed")
