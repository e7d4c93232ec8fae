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
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
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
            await ask_until_served(dialog, conversation.ask_secret)

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
                conversation = _Conversation(self._bus, owner, self._timeouts)
                stack.callback(self._bus.export(conversation.path, conversation.handle))
                stack.callback(await self._bus.watch_owner(owner, conversation.owner_changed))
                stack.push_async_callback(conversation.stop)
                await conversation.begin()
                yield conversation
        except BusError as error:
            raise Unavailable(f"the system prompter cannot be used: {error}") from error
        except ProtocolError as error:
            raise Unavailable(f"the system prompter cannot be understood: {error}") from error

    async def _find_owner(self) -> str:
        """Return the prompter's unique name, to which we speak from then on.

        A prompter is started only if the name has no owner: gnome-shell has no service file for it.
        """
        try:
            return str((await self._bus.call_bus("GetNameOwner", "s", [NAME], "s"))[0])
        except BusError as error:
            if error.name != errors.NAME_HAS_NO_OWNER:
                raise
        await self._bus.call_bus("StartServiceByName", "su", [NAME, 0], "u")
        return str((await self._bus.call_bus("GetNameOwner", "s", [NAME], "s"))[0])


class _Conversation:
    """A conversation with the prompter at the unique name `owner`, which calls us back here."""

    def __init__(self, bus: Bus, owner: str, timeouts: Timeouts) -> None:
        self.path = _CALLBACK_PATH + secrets.token_hex(16)
        self._bus = bus
        self._owner = owner
        self._timeouts = timeouts
        self._over = False
        self._lost = False
        self._ready: _Ready | None = None
        self._changed = asyncio.Event()

    async def handle(self, call: Message) -> tuple[str, Sequence[Any]]:
        """Answer a call to this object. Raises BusError."""
        if call.sender != self._owner:
            _log.warning("refused a call of %s by %s", call.member, call.sender)
            raise BusError(errors.ACCESS_DENIED, "this object serves the prompter alone")
        if (call.interface, call.member, call.signature) == (CALLBACK, "PromptReady", "sa{sv}s"):
            reply, _properties, exchange = call.body
            self._ready = _Ready(reply, exchange)
        elif (call.interface, call.member, call.signature) == (CALLBACK, "PromptDone", ""):
            self._over = True
        else:
            raise BusError(errors.UNKNOWN_METHOD, "there is no such method")
        self._changed.set()
        return "", ()

    def owner_changed(self, owner: str) -> None:
        """Take in that the prompter, or the bus itself, is gone."""
        if owner != self._owner:
            self._over = self._lost = True
            self._changed.set()

    async def begin(self) -> None:
        """Wait for the turn, and take the prompter's public key."""
        await self._call("BeginPrompting", "o", self.path)
        turn = await self._next(self._timeouts.turn, "the prompter was busy too long")
        if turn is None or turn.reply:
            raise ProtocolError("it gave us no turn")
        self._exchange = Exchange(turn.exchange)

    async def stop(self) -> None:
        """Close the dialog, unless the prompter has, and wait for its PromptDone."""
        if self._over:
            return
        with suppress(BusError, Unavailable, TimedOut):
            await self._call("StopPrompting", "o", self.path)
            await self._next(self._timeouts.call, "the prompter did not end")

    async def _call(self, member: str, signature: str, *body: Any) -> None:
        within = self._timeouts.call
        await self._bus.call(self._owner, PATH, PROMPTER, member, signature, body, timeout=within)

    async def _next(self, seconds: float | None, complaint: str) -> _Ready | None:
        """Return the prompter's next PromptReady, or None once it has ended the conversation.

        Raises TimedOut, with `complaint`, and Unavailable when the prompter is gone.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._ready is None and not self._over:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimedOut(complaint) from None
        ready, self._ready = self._ready, None
        if ready is None and self._lost:
            raise Unavailable("the system prompter went away")
        return ready

    async def ask(self, kind: str, text: Text, seconds: float | None) -> str | None:
        """Show a dialog of `kind` "password" or "confirm".

        Returns the exchange text that came with a "yes"; None for a "no".
        """
        self._ready = None  # a PIN that comes twice, for an earlier question, is not tried twice
        if not self._over:  # else the dialog was closed while the last answer was tried
            body = (self.path, kind, _properties(text), self._exchange.message)
            await self._call("PerformPrompt", "osa{sv}s", *body)
        ready = await self._next(seconds, "nobody answered the prompt in time")
        return ready.exchange if ready is not None and ready.reply == "yes" else None

    async def ask_secret(self, text: Text) -> bytearray | None:
        """Return what was typed, for the caller to wipe; None for a "no"."""
        exchange = await self.ask("password", text, self._timeouts.answer)
        return None if exchange is None else self._exchange.open(exchange)


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
