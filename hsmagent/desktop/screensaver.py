"""The screen locker's own word: org.freedesktop.ScreenSaver (KDE and others), GNOME's."""

from collections import Counter
from functools import partial

from hsmagent.bus import Bus, Match, Message, Undo
from hsmagent.desktop.let_go import Closed, Why

# Their bus names are their interfaces' names too.
SCREENSAVERS = {
    "org.freedesktop.ScreenSaver": "/org/freedesktop/ScreenSaver",
    "org.gnome.ScreenSaver": "/org/gnome/ScreenSaver",
}


class ScreenSavers:
    """Watches each screen locker that there is; none is ever started by us."""

    def __init__(self, bus: Bus, closed: Closed) -> None:
        self._bus = bus
        self._closed = closed
        self._undo: list[Undo] = []
        self._said: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen from now on, also over restarts of the bus. Raises BusError."""
        for name in SCREENSAVERS:
            # Any path: KDE signals on a second one as well.
            match = Match(name, name, "ActiveChanged")
            on_owner = partial(self._on_owner, name)
            self._undo.append(await self._bus.subscribe(match, self._on_changed))
            self._undo.append(await self._bus.watch_owner(name, on_owner))

    def stop(self) -> None:
        """Listen no more."""
        for undo in self._undo:
            undo()
        self._undo.clear()

    def _on_changed(self, signal: Message) -> None:
        if signal.signature == "b":
            self._set(signal.interface, active=signal.body[0])

    def _on_owner(self, name: str, owner: str) -> None:
        if owner:
            self._closed.spawn(self._look(name, owner))
        else:
            # It cannot say any more when it is over; the logins are gone already.
            self._set(name, active=False)

    async def _look(self, name: str, owner: str) -> None:
        said = self._said[name]
        reply = await self._bus.call(owner, SCREENSAVERS[name], name, "GetActive", returns="b")
        if self._said[name] == said:  # else it has told us something newer meanwhile
            self._set(name, active=reply[0])

    def _set(self, name: str, *, active: bool) -> None:
        self._said[name] += 1
        if active:
            self._closed.claim(name, Why.SCREEN_LOCK)
        else:
            self._closed.drop(name)
