"""Notifications (org.freedesktop.Notifications, Desktop Notifications Specification 1.2)."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from hsmagent.bus import Bus, Variant, quietly
from hsmagent.limit import RateLimit
from hsmagent.model import (
    PKCS11_PURPOSES,
    Clock,
    Peer,
    PinState,
    Request,
    TokenId,
    name_of,
    printable,
    quoted,
    token_name,
)
from hsmagent.tasks import Tasks

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"

WAITING_AFTER = 2.0  # seconds; most cards answer sooner
MAX_AT_ONCE = 4  # notifications under way: a desktop that hangs must not gather them

MOST_REFUSALS = (3, 10.0)  # some programs try again and again
MOST_USES = (3, 10.0)  # a rebase that signs a hundred commits is not worth a hundred notifications

_NORMAL, _CRITICAL = 1, 2
_BY_DEFAULT = -1  # how long it is shown: the desktop's own choice

_PIN_WORDS = {
    PinState.COUNT_LOW: "A wrong PIN was given. Few tries may be left.",
    PinState.FINAL_TRY: "A wrong PIN was given. One try is left: another one blocks the token.",
    PinState.LOCKED: "Too many wrong PINs: the token is blocked.",
}


class _Wait(AbstractContextManager[None]):
    """A block in which a token works; among `waits` until the block ends.

    due: when a person is to be told of it, by the clock. over: set when the block ends; None
    as long as nobody was told.
    """

    __slots__ = ("_waits", "due", "over", "token")

    def __init__(self, token: TokenId, waits: "dict[_Wait, None]", due: float) -> None:
        self.token = token
        self.due = due
        self.over: asyncio.Event | None = None
        self._waits = waits

    def __enter__(self) -> None:
        self._waits[self] = None

    def __exit__(self, *_: object) -> None:
        del self._waits[self]
        if self.over is not None:
            self.over.set()


class Notifications:
    """Shows what the configuration wants shown; never waits, never fails.

    events: what is wanted now, of "used", "waiting", "removed", "wrong-pin", "refused".
    """

    def __init__(self, bus: Bus, events: Callable[[], Collection[str]], clock: Clock) -> None:
        self._bus = bus
        self._events = events
        self._errands = Tasks()
        self._clock = clock
        self._waits: dict[_Wait, None] = {}  # in the order in which they become due
        self._timer: asyncio.TimerHandle | None = None
        self._shown_waiting: set[TokenId] = set()
        self._uses = RateLimit(*MOST_USES, clock)
        self._refusals = RateLimit(*MOST_REFUSALS, clock)
        self._last_used = 0  # the notification about a use is replaced, not stacked

    def used(self, request: Request) -> None:
        """Say that a key was used."""
        if "used" not in self._events() or not self._uses.admit():
            return
        key = printable(request.key.label, 60) or "A key"
        self._spawn(self._show_use(f"{key} was used", _asked(request)))

    def not_done(self, request: Request, reason: str) -> None:
        """Say why something was refused or failed, where no program says it.

        Whoever was told to touch a FIDO key learns that its use has ended. A PKCS#11 program learns
        a number only, and shows less.
        """
        words = printable(reason[:1].upper() + reason[1:], 200)
        if request.key.touch and "waiting" in self._events():
            self._spawn(self._show("The FIDO key was not used", words))
            return
        silent = request.purpose.kind in PKCS11_PURPOSES and "refused" in self._events()
        if silent and self._refusals.admit():
            program = printable(request.peer.process.program, 60)
            key = printable(request.key.label, 60) or "a key"
            self._spawn(self._show(f"{program} could not use {key}", words))

    def missed(self, peer: Peer, token: TokenId) -> None:
        """Say that a PKCS#11 program wants a token that is away, as few such programs do."""
        if "refused" in self._events() and self._refusals.admit():
            program = printable(peer.process.program, 60)
            summary = f"{program} wanted the token {name_of(token)}"
            self._spawn(self._show(summary, "It is not plugged in."))

    def removed(self, token: TokenId) -> None:
        """Say that a token was pulled out while it was unlocked."""
        if "removed" in self._events():
            self._spawn(self._show(f"{token_name(token)} was removed", "Its login has ended."))

    def wrong_pin(self, token: TokenId, state: PinState) -> None:
        """Say that a wrong PIN was given."""
        if "wrong-pin" in self._events():
            words = _PIN_WORDS.get(state, "A wrong PIN was given.")
            self._spawn(self._show(token_name(token), words, _CRITICAL))

    def waiting(self, request: Request) -> AbstractContextManager[None]:
        """Say, until the block ends, that a key waits for a person.

        A FIDO key always does, so that is said at once. A token may want a touch or a PIN on its
        reader; that is said only when the block takes longer than most signatures.
        """
        token = request.key.token
        if token is None:
            return self._touch(request)
        # Every signature comes by here, so one timer serves all of them: it is set when there is
        # none, and looks which waits are still there.
        if self._timer is None:
            self._look_again_in(WAITING_AFTER)
        return _Wait(token, self._waits, self._clock() + WAITING_AFTER)

    @contextmanager
    def _touch(self, request: Request) -> Iterator[None]:
        over = asyncio.Event()
        if "waiting" in self._events():
            key = request.key.label or "unnamed key"
            self._spawn(
                self._show_until(over, f"Touch your key {quoted(key, 60)}", _asked(request))
            )
        try:
            yield
        finally:
            over.set()

    async def stop(self) -> None:
        """End what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._errands.cancel()
        await self._errands.ended()

    # -- on the bus --------------------------------------------------------------------------

    async def _show_use(self, summary: str, body: str) -> None:
        self._last_used = await self._show(summary, body, replaces=self._last_used)

    def _look_again_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._look_at_waits)

    def _look_at_waits(self) -> None:
        self._timer = None
        now = self._clock()
        for wait in self._waits:
            if wait.due > now:
                self._look_again_in(wait.due - now)
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
            await self._show_until(over, f"{token_name(token)} waits for you", words)
        finally:
            self._shown_waiting.discard(token)

    async def _show_until(self, over: asyncio.Event, summary: str, body: str) -> None:
        number = await self._show(summary, body)
        await over.wait()
        await self._call("CloseNotification", "u", [number], "")

    async def _show(
        self, summary: str, body: str, urgency: int = _NORMAL, replaces: int = 0
    ) -> int:
        """Show a notification; return its number. replaces: the number of an older one, or 0."""
        if "body-markup" in (await self._call("GetCapabilities", "", [], "as"))[0]:
            from html import escape  # with every entity of HTML: half a megabyte

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

    async def _call(self, member: str, signature: str, body: list[Any], returns: str) -> list[Any]:
        return await self._bus.call(NAME, PATH, NAME, member, signature, body, returns=returns)

    def _spawn(self, errand: Coroutine[Any, Any, object]) -> bool:
        """Begin an errand in the background, unless too many are under way; return whether."""
        if len(self._errands) >= MAX_AT_ONCE:
            errand.close()
            return False
        self._errands.start(quietly(errand))
        return True


def _asked(request: Request) -> str:
    """Return who asks, for what and where."""
    said = f"{request.peer.chain}: {request.purpose.summary}"
    to = request.destination
    if to is not None and to.host:
        said += f" at {printable(to.host)}" + (" (forwarded)" if to.forwarded else "")
    return said
