"""One unlock of one token, for every request that waits for it.

The first request that needs the login raises the prompt, later ones join it and the prompt lists
them. A right PIN, typed in the prompt or given by `hsmagent unlock`, serves all of them; a cancel
refuses all of them. C_Login is called once for each PIN that comes in, and never by ourselves.
"""

import asyncio
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hsmagent.door.dialog import ask_for_pin, confirm_last_try
from hsmagent.errors import (
    Cancelled,
    HsmAgentError,
    PinIncorrect,
    PinLength,
    TimedOut,
    TriesLow,
    Unavailable,
)
from hsmagent.frame import wipe
from hsmagent.model import PinState, Request, TokenId, TokenStatus, name_of, token_name
from hsmagent.prompt import words
from hsmagent.prompt.base import Prompter
from hsmagent.token.login import check_usable
from hsmagent.token.token import Token

log = logging.getLogger(__name__)


class PinStore(Protocol):
    """Where a token's PIN may be kept, for those who want that (prompt.pin_store)."""

    async def take(self, status: TokenStatus) -> bytearray | None:
        """Return the PIN for exactly one C_Login, or None."""
        ...

    def keep(self, token: TokenId) -> None:
        """Keep the PIN which `take` gave: it was right, or was not tried."""
        ...

    async def forget(self, token: TokenId) -> bool:
        """Delete the PIN, which the token did not accept."""
        ...

    async def save(self, token: TokenId, pin: bytearray) -> bool:
        """Keep a PIN that the token has just accepted."""
        ...


Tell = Callable[[Request], None]
"""Tells whoever made a request that it waits for `hsmagent unlock`."""


def tell_nobody(_request: Request) -> None:
    """Let requests wait in silence."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a token's PIN is had: who asks, how long (seconds) to wait for a terminal, a store."""

    prompter: Prompter
    timeout: float
    store: PinStore | None = None
    tell: Tell = tell_nobody


class Unlock:
    """The requests that wait for one token's login, and the one prompt that serves them."""

    def __init__(self, token: Token, asking: Callable[[], Asking]) -> None:
        self.token = token
        self._asking = asking
        self._waiting: dict[asyncio.Future[bool], Request] = {}  # in order of arrival
        self._task: asyncio.Task[None] | None = None
        self._for_terminal = False
        # Whose request the dialog shows in full: a PIN confirms that one. It may leave meanwhile.
        self._shown: asyncio.Future[bool] | None = None

    async def join(self, request: Request) -> bool:
        """Wait for the login. Return whether the PIN was typed for this very request.

        Raises Refused (cancelled, nobody answered) or TokenError.
        """
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = request
        if self._for_terminal:
            self._asking().tell(request)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await waiter
        finally:
            del self._waiting[waiter]
            if not self._waiting and self._task is not None:
                # Nobody is left to ask for: the dialog closes. Whoever comes now needs a new one.
                self._task.cancel()
                self._task = None

    def served(self) -> None:
        """Tell everyone who waits that the token was unlocked by other means."""
        self._end(lambda waiter: waiter.set_result(False))

    def refuse(self, error: HsmAgentError) -> None:
        """Refuse everyone who waits, and close the dialog."""
        self._end(lambda waiter: waiter.set_exception(error))

    def _end(self, settle: Callable[["asyncio.Future[bool]"], None]) -> None:
        for waiter in tuple(self._waiting):
            if not waiter.done():
                settle(waiter)

    async def _run(self) -> None:
        try:
            await self._ask()
        except HsmAgentError as error:
            self.refuse(error)
        except Exception:
            log.exception("a prompt failed in a way it should not")
            self.refuse(Unavailable("the prompt failed; the log has the details"))
        else:
            self._end(lambda waiter: waiter.set_result(waiter is self._shown))
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _ask(self) -> None:
        self._shown = None
        status = await look_at_pin(self.token)
        if status.logged_in:
            return  # a login ended well whose own requests have left meanwhile
        asking = self._asking()
        if asking.store is not None and await self._log_in_from(asking.store, status):
            return
        try:
            if status.pin_pad:
                await self._ask_at_pin_pad(asking.prompter)
            else:
                await ask_for_pin(asking.prompter, self.token.status, self._requests, self._log_in)
        except Unavailable as why:
            await self._wait_for_terminal(why, asking)

    async def _log_in(self, pin: bytearray, at_worst: PinState) -> None:
        if all(waiter.done() for waiter in self._waiting):
            raise Cancelled("nobody waits for the PIN any more")
        await log_in(self.token, self._asking().store, pin, at_worst)

    async def _log_in_from(self, store: PinStore, status: TokenStatus) -> bool:
        """Try a stored PIN, once. False: there is none, or it is wrong and now forgotten."""
        pin = await store.take(status)
        if pin is None:
            return False
        try:
            await self.token.login(pin, at_worst=PinState.OK)
        except TriesLow:
            store.keep(status.id)
            return False
        except (PinIncorrect, PinLength):
            log.warning("the stored PIN of %s is wrong and forgotten", name_of(status.id))
            await store.forget(status.id)
            return False
        store.keep(status.id)
        return True

    async def _ask_at_pin_pad(self, prompter: Prompter) -> None:
        status = self.token.status
        at_worst = await confirm_last_try(prompter, status(), self._requests())
        text = words.use_pin_pad(status(), self._requests())
        notice = asyncio.create_task(prompter.notice(text))
        try:
            await self.token.login(None, at_worst=at_worst)
        finally:
            notice.cancel()
            await asyncio.gather(notice, return_exceptions=True)

    async def _wait_for_terminal(self, why: Unavailable, asking: Asking) -> None:
        """Nothing can ask: hold the requests while a person may run `hsmagent unlock`."""
        name = name_of(self.token.id)
        command = shlex.join(("hsmagent", "unlock", token_name(self.token.id)))
        log.warning(
            "the token %s is locked and no window can ask for its PIN (%s); "
            "run `%s` within %d seconds",
            name,
            why,
            command,
            asking.timeout,
        )
        self._for_terminal = True
        try:
            for request in self._waiting.values():
                asking.tell(request)
            await asyncio.sleep(asking.timeout)
        finally:
            self._for_terminal = False
        raise TimedOut(f"the token {name} is locked; run `{command}` and try again")

    def _requests(self) -> list[Request]:
        """Return the requests that wait, and note whose is shown in full."""
        self._shown = next(iter(self._waiting), None)
        return list(self._waiting.values())


async def look_at_pin(token: Token) -> TokenStatus:
    """Return how a token stands now, other programs' tries included.

    Raises PinLocked or PinError when no PIN can serve.
    """
    await token.look()
    status = token.status()
    check_usable(status)
    return status


async def log_in(
    token: Token,
    store: PinStore | None,
    pin: bytearray | None,
    at_worst: PinState,
    served: Callable[[], None] = lambda: None,
) -> None:
    """Try a PIN that was typed, or the PIN pad; keep one that is right, where that is wanted.

    served: told of the login before the PIN is stored, which may take a while.
    """
    kept = bytearray(pin or b"")
    try:
        tried = await token.login(pin, at_worst=at_worst)
        served()
        if tried and kept and store is not None:
            await store.save(token.id, kept)
    finally:
        wipe(kept)
