"""The desktop's own prompter: org.gnome.keyring.SystemPrompter (gnome-shell, or gcr-prompter).

A conversation goes so: BeginPrompting; the prompter calls PromptReady("") with its public key when
it is our turn; then PerformPrompt and PromptReady("yes" or "no") as often as needed, while the
dialog stays up; StopPrompting; PromptDone. After a "no" the prompter ends the conversation itself.

Only the unique name that owned the prompter's name at the start may call us back, at a path that
nobody else can guess.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from hsmagent.bus import Bus, BusError, Message, Variant, errors
from hsmagent.errors import Cancelled, ProtocolError, TimedOut, Unavailable
from hsmagent.prompt.base import PinDialog, Text, ask_until_served
from hsmagent.prompt.sx_aes import Exchange

_log = logging.getLogger(__name__)

NAME = "org.gnome.keyring.SystemPrompter"
PATH = "/org/gnome/keyring/Prompter"
PROMPTER = "org.gnome.keyring.internal.Prompter"
CALLBACK = "org.gnome.keyring.internal.Prompter.Callback"
_CALLBACK_PATH = "/org/hsmagent/prompt/"

_DBUS, _DBUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for each method call; until it is our turn; for the person."""

    call: float = 5.0
    turn: float = 120.0
    answer: float = 120.0


@dataclass(frozen=True, slots=True)
class _Ready:
    """PromptReady: "" our turn, "yes" or "no" the answer; `exchange` as sx_aes reads it."""

    reply: str
    exchange: str


class SystemPrompter:
    """Asks in the desktop's own dialog."""

    name = "system"

    def __init__(self, bus: Bus, timeouts: Timeouts) -> None:
        self._bus = bus
        self._timeouts = timeouts

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until the PIN serves. The dialog waits, greyed out, while each PIN is tried."""
        async with self._conversation() as conversation:
            ask = partial(conversation.ask_secret, seconds=self._timeouts.answer)
            await ask_until_served(dialog, ask)

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no. The prompter has no way to make refusal the default button."""
        async with self._conversation() as conversation:
            return await conversation.ask("confirm", text, self._timeouts.answer) is not None

    async def notice(self, text: Text) -> None:
        """Show `text` until it is hidden or we are cancelled; its second button declines."""
        async with self._conversation() as conversation:
            if await conversation.ask("confirm", text, None) is None:
                raise Cancelled("the notice was cancelled")

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator["_Conversation"]:
        """Begin a conversation and wait for its turn; end it whatever happens."""
        try:
            async with AsyncExitStack() as stack:
                owner = await self._find_owner()
                callback = _Callback(owner)
                stack.callback(self._bus.export(callback.path, callback.handle))
                stack.callback(await self._bus.watch_owner(owner, callback.owner_changed))
                stack.push_async_callback(self._stop, callback)
                await self._call(owner, "BeginPrompting", "o", [callback.path])
                turn = await callback.next(self._timeouts.turn, "the prompter was busy too long")
                call = partial(self._call, owner)
                yield _Conversation(call, callback, _begin_exchange(turn))
        except BusError as error:
            raise Unavailable(f"the system prompter cannot be used: {error}") from error
        except ProtocolError as error:
            raise Unavailable(f"the system prompter cannot be understood: {error}") from error

    async def _find_owner(self) -> str:
        """Return the prompter's unique name, to which we speak from then on.

        A prompter is started only if the name has no owner: gnome-shell has no service file for it.
        """
        try:
            return await self._ask_bus("GetNameOwner", "s", [NAME], returns="s")
        except BusError as error:
            if error.name != errors.NAME_HAS_NO_OWNER:
                raise
        await self._ask_bus("StartServiceByName", "su", [NAME, 0], returns="u")
        return await self._ask_bus("GetNameOwner", "s", [NAME], returns="s")

    async def _ask_bus(self, member: str, signature: str, body: list[Any], *, returns: str) -> str:
        bus, within = (_DBUS, _DBUS_PATH, _DBUS), self._timeouts.call
        reply = await self._bus.call(*bus, member, signature, body, returns=returns, timeout=within)
        return str(reply[0])

    async def _call(self, owner: str, member: str, signature: str, body: list[Any]) -> None:
        within = self._timeouts.call
        await self._bus.call(owner, PATH, PROMPTER, member, signature, body, timeout=within)

    async def _stop(self, callback: "_Callback") -> None:
        """Close the dialog, unless the prompter has, and wait for its PromptDone."""
        if callback.over:
            return
        with suppress(BusError, Unavailable, TimedOut):
            await self._call(callback.owner, "StopPrompting", "o", [callback.path])
            await callback.next(self._timeouts.call, "the prompter did not end")


class _Callback:
    """The object that the prompter at the unique name `owner` calls back."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.path = _CALLBACK_PATH + secrets.token_hex(16)
        self.over = False
        self._lost = False
        self._ready: _Ready | None = None
        self._changed = asyncio.Event()

    async def handle(self, call: Message) -> tuple[str, Sequence[Any]]:
        """Answer a call to this object. Raises BusError."""
        if call.sender != self.owner:
            _log.warning("refused a call of %s by %s", call.member, call.sender)
            raise BusError(errors.ACCESS_DENIED, "this object serves the prompter alone")
        if (call.interface, call.member, call.signature) == (CALLBACK, "PromptReady", "sa{sv}s"):
            reply, _properties, exchange = call.body
            self._ready = _Ready(reply, exchange)
        elif (call.interface, call.member, call.signature) == (CALLBACK, "PromptDone", ""):
            self.over = True
        else:
            raise BusError(errors.UNKNOWN_METHOD, "there is no such method")
        self._changed.set()
        return "", ()

    def owner_changed(self, owner: str) -> None:
        """Take in that the prompter, or the bus itself, is gone."""
        if owner != self.owner:
            self.over = self._lost = True
            self._changed.set()

    def drop(self) -> None:
        """Drop an answer to an earlier question: a PIN that comes twice must not be tried twice."""
        self._ready = None

    async def next(self, seconds: float | None, complaint: str) -> _Ready | None:
        """Return the prompter's next PromptReady, or None once it has ended the conversation.

        Raises TimedOut, with `complaint`, and Unavailable when the prompter is gone.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._ready is None and not self.over:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimedOut(complaint) from None
        ready, self._ready = self._ready, None
        if ready is None and self._lost:
            raise Unavailable("the system prompter went away")
        return ready


@dataclass(frozen=True, slots=True)
class _Conversation:
    """A conversation in which it is our turn."""

    call: Callable[[str, str, list[Any]], Awaitable[None]]
    callback: _Callback
    exchange: Exchange

    async def ask(self, kind: str, text: Text, seconds: float | None) -> str | None:
        """Show a dialog of `kind` "password" or "confirm".

        Returns the exchange text that came with a "yes"; None for a "no".
        """
        self.callback.drop()
        if not self.callback.over:  # else the dialog was closed while the last answer was tried
            body = [self.callback.path, kind, _properties(text), self.exchange.message]
            await self.call("PerformPrompt", "osa{sv}s", body)
        ready = await self.callback.next(seconds, "nobody answered the prompt in time")
        return ready.exchange if ready is not None and ready.reply == "yes" else None

    async def ask_secret(self, text: Text, seconds: float) -> bytearray | None:
        """Return what was typed, for the caller to wipe; None for a "no"."""
        exchange = await self.ask("password", text, seconds)
        return None if exchange is None else self.exchange.open(exchange)


def _begin_exchange(turn: _Ready | None) -> Exchange:
    """Read the prompter's first PromptReady, which must give us the turn."""
    if turn is None or turn.reply:
        raise ProtocolError("it gave us no turn")
    return Exchange(turn.exchange)


def _properties(text: Text) -> dict[str, Any]:
    """Return all properties of a dialog: one left out would stay as the last prompt had it."""
    return {
        "title": Variant("s", text.title),
        "message": Variant("s", text.message),
        "description": Variant("s", text.description),
        "warning": Variant("s", text.warning),
        "continue-label": Variant("s", text.ok),
        "cancel-label": Variant("s", "Cancel"),
    }
