"""systemd-logind: the session's lock, and sleep (org.freedesktop.login1(5))."""

import asyncio
import logging
import os
from contextlib import ExitStack
from typing import Any

from hsmagent.bus import PROPERTIES, Bus, BusError, Match, Message
from hsmagent.desktop.let_go import Closed, Why

log = logging.getLogger(__name__)

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = f"{NAME}.Manager"
SESSION = f"{NAME}.Session"
USER = f"{NAME}.User"

_SCREEN, _SLEEP = "logind", "sleep"


class Logind:
    """Watches the session that this user's screen belongs to, and the machine's sleep.

    session_id: `XDG_SESSION_ID`; "" in a service of the user manager, which belongs to no
    session: then it is the user's graphical one, which may change while we run.
    """

    def __init__(self, bus: Bus, closed: Closed, session_id: str = "") -> None:
        self._bus = bus
        self._closed = closed
        self._session_id = session_id
        self._session_path = ""
        self._looking = asyncio.Lock()
        self._sleep_signals = 0
        self._inhibitor = -1
        self._heard = ExitStack()  # ends what we listen to

    async def start(self) -> None:
        """Listen from now on, also over restarts of the bus. Raises BusError."""
        # Signals come on the path of a session, and which session is ours may change. So those of
        # any path are taken, and each is compared with our session's path.
        for match, told in (
            (Match(NAME, SESSION, "Lock"), self._on_lock),
            (Match(NAME, PROPERTIES, "PropertiesChanged", arg0=SESSION), self._on_properties),
            (Match(NAME, MANAGER, "SessionRemoved", PATH), self._on_session_removed),
            (Match(NAME, MANAGER, "PrepareForSleep", PATH), self._on_sleep),
        ):
            self._heard.callback(await self._bus.subscribe(match, told))
        self._heard.callback(await self._bus.watch_owner(NAME, self._on_owner))

    def stop(self) -> None:
        """Listen no more, and hold no sleep back."""
        self._heard.close()
        self._release()

    # -- the screen --------------------------------------------------------------------------

    def _on_owner(self, owner: str) -> None:
        """Logind came (back): look how things are. What it said before it went still holds."""
        if owner:
            self._closed.spawn(self._look())
            self._closed.spawn(self._look_at_sleep())
            self._closed.spawn(self._inhibit())

    def _on_lock(self, signal: Message) -> None:
        # Somebody wants the screen locked. Not every locker says when that is over, so this ends
        # the logins and changes nothing else.
        self._closed.spawn(self._lock(signal.path))

    def _on_properties(self, signal: Message) -> None:
        if signal.signature == "sa{sv}as" and (
            "LockedHint" in signal.body[1] or "LockedHint" in signal.body[2]
        ):
            self._closed.spawn(self._look())

    def _on_session_removed(self, signal: Message) -> None:
        if signal.signature == "so" and signal.body[1] == self._session_path:
            self._closed.spawn(self._closed.let_go(Why.SCREEN_LOCK))
        self._closed.spawn(self._look())

    async def _lock(self, path: str) -> None:
        if path == await self._session():
            await self._closed.let_go(Why.SCREEN_LOCK)

    async def _look(self) -> None:
        """Ask logind whether our session is locked. One look after the other: the newest counts."""
        async with self._looking:
            path = self._session_path = await self._session()
            if path and await self._bus.get(NAME, path, SESSION, "LockedHint") is True:
                self._closed.claim(_SCREEN, Why.SCREEN_LOCK)
            else:
                self._closed.drop(_SCREEN)

    async def _session(self) -> str:
        """Return the path of our session, or "" if the user has no screen."""
        if self._session_id:
            path = await self._manager("GetSession", "s", [self._session_id])
            if path:  # else XDG_SESSION_ID is that of a session which has ended
                return path
        user = await self._manager("GetUser", "u", [os.getuid()])
        match await self._bus.get(NAME, user, USER, "Display") if user else None:
            case [str(), str(path)] if path.startswith(f"{PATH}/session/"):
                return path
        return ""

    async def _manager(self, member: str, signature: str, body: list[Any]) -> str:
        """Return the path of the object that a method of the manager finds, or ""."""
        try:
            reply = await self._bus.call(NAME, PATH, MANAGER, member, signature, body, returns="o")
        except BusError as error:
            if error.name.startswith(f"{NAME}.NoSuch"):
                return ""
            raise
        return str(reply[0])

    # -- sleep -------------------------------------------------------------------------------

    def _on_sleep(self, signal: Message) -> None:
        if signal.signature != "b":
            return
        self._sleep_signals += 1
        if signal.body[0]:
            self._closed.enter(_SLEEP, Why.SUSPEND)
            self._closed.spawn(self._sleep())
        else:
            self._closed.drop(_SLEEP)
            self._closed.spawn(self._inhibit())

    async def _look_at_sleep(self) -> None:
        """Take in a sleep, or its end, of which no signal reached us."""
        signals = self._sleep_signals
        asleep = await self._bus.get(NAME, PATH, MANAGER, "PreparingForSleep")
        if signals != self._sleep_signals:
            return  # logind has told us something newer meanwhile
        if asleep is True:
            self._closed.claim(_SLEEP, Why.SUSPEND)
        else:
            self._closed.drop(_SLEEP)

    async def _sleep(self) -> None:
        try:
            await self._closed.let_go(Why.SUSPEND)
        finally:
            self._release()

    async def _inhibit(self) -> None:
        """Have logind wait for us before the machine sleeps, while our descriptor is open."""
        body = ["sleep", "hsmagent", "Log out of the tokens", "delay"]
        try:
            reply = await self._bus.call(NAME, PATH, MANAGER, "Inhibit", "ssss", body, returns="h")
        except BusError as error:
            log.info("logind will not wait for us before the machine sleeps: %s", error)
            return
        self._release()
        self._inhibitor = reply[0]

    def _release(self) -> None:
        if self._inhibitor >= 0:
            os.close(self._inhibitor)
            self._inhibitor = -1
