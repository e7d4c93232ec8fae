"""One unlock of one token, for every request that waits for it.

The first request that needs the login raises the prompt; later ones join it, and the prompt lists
them. A right PIN, typed in the prompt or given by `hsmagent unlock`, serves all of them; a cancel
refuses all of them. C_Login is called once for each PIN that is typed, and never again by itself;
but where a key wants its PIN for each use, the PIN that was typed for a use serves the login and
that use.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from hsmagent.door.dialog import ask_for_pin, confirm_last_try
from hsmagent.door.terminal import KEPT, TYPED, Asking, Held, PinStore
from hsmagent.errors import (
    Cancelled,
    HsmAgentError,
    PinIncorrect,
    PinLength,
    TriesLow,
    Unavailable,
)
from hsmagent.frame import wipe
from hsmagent.model import PinState, Request, TokenStatus, name_of
from hsmagent.prompt import words
from hsmagent.prompt.base import Prompter
from hsmagent.token.login import check_usable
from hsmagent.token.token import Token

log = logging.getLogger(__name__)


class Unlock:
    """The requests that wait for one token's login, and the one prompt that serves them."""

    def __init__(self, token: Token, asking: Callable[[], Asking]) -> None:
        self.token = token
        self._asking = asking
        self._waiting: dict[_Waiter, Request] = {}  # in order of arrival
        self._task: asyncio.Task[None] | None = None
        self._held: Held | None = None
        # A login that waits for a PIN at the reader cannot be cancelled. Requests that come later
        # are served by it, too.
        self._at_pad: asyncio.Task[bool] | None = None
        # The PIN that the token accepted, for the request that was shown if its key wants it.
        self._typed = bytearray()
        # The waiter whose request the dialog shows in full: the PIN confirms that request. The
        # waiter may leave meanwhile.
        self._shown: _Waiter | None = None

    async def join(self, request: Request) -> bytearray | None:
        """Wait for the login. Return the PIN that was typed for this very request, or None.

        The PIN is empty unless the key wants it for each use; the caller wipes it. Raises Refused
        (cancelled, nobody answered) or TokenError.
        """
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = request
        if self._held is not None:
            self._held.tell([request])
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                wipe(waiter.result() or bytearray())
            raise
        finally:
            del self._waiting[waiter]
            if not self._waiting and self._task is not None:
                # No request is left: the dialog closes. The next request gets a new one.
                self._task.cancel()
                self._task = None

    def wants_pin(self) -> Request | None:
        """Return the first request that waits for a terminal.

        Only after the login may it show that the request's key wants the PIN for each use.
        """
        return None if self._held is None else next(iter(self._waiting.values()), None)

    def served(self, shown: Request | None = None, pin: bytearray | None = None) -> None:
        """Tell everyone who waits that the token was unlocked by other means.

        shown: the request that was shown to the person who gave the PIN. If its key wants the PIN
        for each use, the request gets a copy of it.
        """

        def settle(waiter: _Waiter) -> None:
            its = self._waiting[waiter]
            serves = pin is not None and its is shown and wants_each_time(its, self.token)
            waiter.set_result(pin[:] if pin is not None and serves else None)

        self._end(settle)

    def refuse(self, error: HsmAgentError) -> None:
        """Refuse everyone who waits, and close the dialog."""
        self._end(lambda waiter: waiter.set_exception(error))

    def _end(self, settle: "Callable[[_Waiter], None]") -> None:
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
            self._end(self._give_pin)
        finally:
            wipe(self._typed)
            if self._task is asyncio.current_task():
                self._task = None

    async def _ask(self) -> None:
        self._shown, self._typed = None, bytearray()
        # While the reader waits for a PIN, the token answers nobody.
        at_pad = self._waits_at_pad()
        status = self.token.status() if at_pad else await look_at_pin(self.token)
        # An earlier login succeeded after the requests that asked for it had left; or the token was
        # still awaited when it was asked for, and wants no login.
        if status.logged_in or not status.login_required:
            return
        asking = self._asking()
        if asking.store is not None and await self._log_in_from(asking.store, status):
            return
        while not await self._ask_with_prompter(asking, pin_pad=status.pin_pad):
            pass

    async def _ask_with_prompter(self, asking: Asking, *, pin_pad: bool) -> bool:
        """Ask. False: no prompter could, and one that may be able to has come meanwhile."""
        try:
            if pin_pad:
                await self._ask_at_pin_pad(asking.prompter)
            else:
                await ask_for_pin(asking.prompter, self.token.status, self._requests, self._log_in)
        except Unavailable as why:
            self._held = Held(self.token.id, why, asking)
            try:
                self._held.tell(self._waiting.values())
                await self._held.until()
            finally:
                self._held = None
            return False
        return True

    async def _log_in(self, pin: bytearray, at_worst: PinState) -> None:
        if all(waiter.done() for waiter in self._waiting):
            raise Cancelled("nobody waits for the PIN any more")
        typed = pin[:]
        try:
            store = self._asking().store
            await log_in(self.token, store, pin, at_worst, wrong=partial(self._wrong, TYPED))
            shown = None if self._shown is None else self._waiting.get(self._shown)
            if shown is not None and wants_each_time(shown, self.token):
                self._typed = typed[:]
        finally:
            wipe(typed)

    def _give_pin(self, waiter: "_Waiter") -> None:
        waiter.set_result(self._typed[:] if waiter is self._shown else None)

    def _wrong(self, what: str) -> None:
        """Have it noted that a PIN was wrong, for the request that is shown first."""
        for request in islice(self._waiting.values(), 1):
            self._asking().wrong(request, what)

    async def _log_in_from(self, store: PinStore, status: TokenStatus) -> bool:
        """Try a stored PIN, once. False: there is none, it was not tried, or it was wrong."""
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
            self._wrong(KEPT)
            await store.forget(status.id)
            return False
        store.keep(status.id)
        return True

    async def _ask_at_pin_pad(self, prompter: Prompter) -> None:
        status = self.token.status
        if self._at_pad is None or self._at_pad.done():
            at_worst = await confirm_last_try(prompter, status(), self._requests())
            self._at_pad = asyncio.ensure_future(self.token.login(None, at_worst=at_worst))
            self._at_pad.add_done_callback(lambda done: done.cancelled() or done.exception())
        text = words.use_pin_pad(status(), self._requests())
        login = asyncio.shield(self._at_pad)
        notice = asyncio.create_task(prompter.notice(text))
        try:
            both: list[asyncio.Future[Any]] = [login, notice]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if notice.done() and isinstance(notice.exception(), Cancelled) and not login.done():
                raise Cancelled(f"the PIN of {name_of(self.token.id)} was not wanted at the reader")
            await login
        finally:
            login.cancel()
            notice.cancel()
            await asyncio.gather(notice, return_exceptions=True)

    def _waits_at_pad(self) -> bool:
        return self._at_pad is not None and not self._at_pad.done()

    def _requests(self) -> list[Request]:
        """Return the requests that wait, and note whose is shown in full."""
        self._shown = next(iter(self._waiting), None)
        return list(self._waiting.values())


_Waiter = asyncio.Future[bytearray | None]


def as_known_now(request: Request, token: Token) -> Request:
    """Return the request with its key as the token shows it after a login.

    Some tokens tell only then that a key wants the PIN for each use.
    """
    for key in token.status().keys:
        if key.spki == request.key.spki:
            return replace(request, key=key)
    return request


def wants_each_time(request: Request, token: Token) -> bool:
    """Whether the request's key wants its PIN for each use, as far as is known now."""
    return as_known_now(request, token).key.always_authenticate


async def look_at_pin(token: Token) -> TokenStatus:
    """Return a token's status after looking at it anew: other programs may have used up tries.

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
    *,
    served: Callable[[], None] = lambda: None,
    wrong: Callable[[], None] = lambda: None,
) -> bool:
    """Try a PIN that was typed; None: have it typed on the reader. Store one that is right.

    served: told of the login before the PIN is stored, which may take a while. wrong: told of a PIN
    that is wrong. Returns False when there was a login already, so that the PIN was not tried.
    Raises TokenError.
    """
    kept = bytearray(pin or b"")
    try:
        tried = await token.login(pin, at_worst=at_worst)
        served()
        if tried and kept and store is not None:
            await store.save(token.id, kept)
    except PinIncorrect:
        wrong()
        raise
    finally:
        wipe(kept)
    return tried
