"""What screen lockers say: org.freedesktop.ScreenSaver (KDE and others), org.gnome.ScreenSaver."""

from collections import Counter
from contextlib import ExitStack
from functools import partial

from hsmagent.bus import Bus, Match, Message
from hsmagent.desktop.let_go import Closed, Why

# The name of each on the bus, which is also its interface's → its path.
SCREENSAVERS = {
    "org.freedesktop.ScreenSaver": "/org/freedesktop/ScreenSaver",
    "org.gnome.ScreenSaver": "/org/gnome/ScreenSaver",
}


class ScreenSavers:
    """Watches each screen locker that there is; none is ever started by us."""

    def __init__(self, bus: Bus, closed: Closed) -> None:
        self._bus = bus
        self._closed = closed
        self._heard = ExitStack()  # ends what we listen to
        self._said: Counter[str] = Counter()

    async def start(self) -> None:
        """Listen from now on, also over restarts of the bus. Raises BusError."""
        for name in SCREENSAVERS:
            # Any path: KDE signals on a second one as well.
            match = Match(name, name, "ActiveChanged")
            on_owner = partial(self._on_owner, name)
            self._heard.callback(await self._bus.subscribe(match, self._on_changed))
            self._heard.callback(await self._bus.watch_owner(name, on_owner))

    def stop(self) -> None:
        """Listen no more."""
        self._heard.close()

    def _on_changed(self, signal: Message) -> None:
        if signal.signature == "b":
            self._set(signal.interface, active=signal.body[0])

    def _on_owner(self, name: str, owner: str) -> None:
        if owner:
            self._closed.spawn(self._look(name, owner))
        else:
            # A locker that has gone cannot say when the screen is unlocked. The logins have ended.
            self._set(name, active=False)

    async def _look(self, name: str, owner: str) -> None:
        said = self._said[name]
        reply = await self._bus.call(owner, SCREENSAVERS[name], name, "GetActive", returns="b")
        if self._said[name] == said:  # else the locker has told us something newer meanwhile
            self._set(name, active=reply[0])

    def _set(self, name: str, *, active: bool) -> None:
        self._said[name] += 1
        if active:
            self._closed.claim(name, Why.SCREEN_LOCK)
        else:
            self._closed.drop(name)
