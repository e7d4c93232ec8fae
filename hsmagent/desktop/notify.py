"""Notifications (org.freedesktop.Notifications, Desktop Notifications Specification 1.2)."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from hsmagent.bus import Bus, Variant, quietly
from hsmagent.limit import RateLimit
from hsmagent.model import Clock, PinState, Request, TokenId, printable, token_name
from hsmagent.tasks import Tasks

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"

WAITING_AFTER = 2.0  # seconds; most cards answer sooner
MAX_AT_ONCE = 4  # a desktop that hangs shall not gather our notifications

MOST_USES = (3, 10.0)  # a rebase that signs a hundred commits is not worth a hundred notifications

_NORMAL, _CRITICAL = 1, 2
_BY_DEFAULT = -1  # how long it is shown: the desktop's own choice

_PIN_WORDS = {
    PinState.COUNT_LOW: "A wrong PIN was given. Few tries may be left.",
    PinState.FINAL_TRY: "A wrong PIN was given. One try is left: another one blocks the token.",
    PinState.LOCKED: "Too many wrong PINs: the token is blocked.",
}


@dataclass(slots=True, eq=False)
class _Wait:
    """A block in which a token works.

    due: when a person is told of it, by the loop's clock; over: set at its end, once one was told.
    """

    token: TokenId
    due: float
    over: asyncio.Event | None = None


class Notifications:
    """Shows what the configuration wants shown; never waits, never fails.

    events: what is wanted now, of "used", "waiting", "removed", "wrong-pin".
    """

    def __init__(self, bus: Bus, events: Callable[[], Collection[str]], clock: Clock) -> None:
        self._bus = bus
        self._events = events
        self._errands = Tasks()
        self._waits: dict[_Wait, None] = {}  # in the order in which they become due
        self._timer: asyncio.TimerHandle | None = None
        self._shown_waiting: set[TokenId] = set()
        self._uses = RateLimit(*MOST_USES, clock)
        self._last_used = 0  # the notification about a use is replaced, not stacked

    def used(self, request: Request) -> None:
        """Say that a key was used."""
        if "used" not in self._events() or not self._uses.admit():
            return
        key = printable(request.key.label, 60) or "A key"
        body = f"{request.peer.chain}: {request.purpose.summary}"
        if request.destination is not None and request.destination.host:
            body += f" at {printable(request.destination.host)}"
        self._spawn(self._show_use(f"{key} was used", body))

    def removed(self, token: TokenId) -> None:
        """Say that a token was pulled out while it was unlocked."""
        if "removed" in self._events():
            self._spawn(
                self._show(f"{token_name(token)} was removed", "Its login has ended.", _NORMAL)
            )

    def wrong_pin(self, token: TokenId, state: PinState) -> None:
        """Say that a wrong PIN was given."""
        if "wrong-pin" in self._events():
            words = _PIN_WORDS.get(state, "A wrong PIN was given.")
            self._spawn(self._show(token_name(token), words, _CRITICAL))

    @contextmanager
    def waiting(self, token: TokenId) -> Iterator[None]:
        """Say that the token waits (for a touch, or its PIN pad) if the block takes long."""
        # Every signature comes by here, so that one timer serves all of them: it is set when there
        # is none, and looks which waits are still there.
        loop = asyncio.get_running_loop()
        wait = _Wait(token, loop.time() + WAITING_AFTER)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.due, self._look_at_waits)
        try:
            yield
        finally:
            del self._waits[wait]
            if wait.over is not None:
                wait.over.set()

    async def stop(self) -> None:
        """End what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._errands.cancel()
        await self._errands.ended()

    # -- on the bus --------------------------------------------------------------------------

    async def _show_use(self, summary: str, body: str) -> None:
        self._last_used = await self._show(summary, body, _NORMAL, self._last_used)

    def _look_at_waits(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for wait in self._waits:
            if wait.due > now:
                self._timer = loop.call_at(wait.due, self._look_at_waits)
                return
            if wait.over is None:
                wait.over = asyncio.Event()
                self._long_wait(wait.token, wait.over)

    def _long_wait(self, token: TokenId, over: asyncio.Event) -> None:
        if "waiting" not in self._events() or token in self._shown_waiting:
            return
        if self._spawn(self._show_while_waiting(token, over)):
            self._shown_waiting.add(token)

    async def _show_while_waiting(self, token: TokenId, over: asyncio.Event) -> None:
        try:
            words = "Touch the token, or type the PIN on its reader."
            number = await self._show(f"{token_name(token)} waits for you", words, _NORMAL)
            await over.wait()
        finally:
            self._shown_waiting.discard(token)
        await self._call("CloseNotification", "u", [number], "")

    async def _show(self, summary: str, body: str, urgency: int, replaces: int = 0) -> int:
        """Show it; return its number."""
        if "body-markup" in await self._capabilities():
            body = escape(body, quote=False)
        hints = {"urgency": Variant("y", urgency), "category": Variant("s", "device")}
        reply = await self._call(
            "Notify",
            "susssasa{sv}i",
            ["hsmagent", replaces, "dialog-password", summary, body, [], hints, _BY_DEFAULT],
            "u",
        )
        number: int = reply[0]
        return number

    async def _capabilities(self) -> list[str]:
        found: list[str] = (await self._call("GetCapabilities", "", [], "as"))[0]
        return found

    async def _call(self, member: str, signature: str, body: list[Any], returns: str) -> list[Any]:
        return await self._bus.call(NAME, PATH, NAME, member, signature, body, returns=returns)

    def _spawn(self, errand: Coroutine[Any, Any, object]) -> bool:
        """Do it in the background, unless too much is going on there already; say whether."""
        if len(self._errands) >= MAX_AT_ONCE:
            errand.close()
            return False
        self._errands.start(quietly(errand))
        return True
