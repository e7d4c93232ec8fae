"""The one door: every private-key operation, whoever asks, passes here.

policy → confirmation → login → operation → record. No lock is held while a person is asked:
requests for one token share one prompt (`unlock.Unlock`), all others go on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from hsmagent.door.activity import FAILED, REFUSED, USED, WRONG_PIN
from hsmagent.door.dialog import ask_for_one_pin
from hsmagent.door.each_use import EachUse
from hsmagent.door.policy import Agreement, Policy, Verdict
from hsmagent.door.terminal import TYPED, Arrival, Asking, PinStore, Tell, never, tell_nobody
from hsmagent.door.unlock import Unlock, as_known_now, log_in
from hsmagent.errors import Cancelled, HsmAgentError, LoginNeeded, PinNeeded, Refused, TokenGone
from hsmagent.frame import wipe
from hsmagent.model import Key, Operation, PinState, PurposeKind, Request, TokenId, name_of
from hsmagent.prompt import words
from hsmagent.prompt.base import Prompter
from hsmagent.tasks import Tasks
from hsmagent.token.token import Token

Waiting = Callable[[Request], AbstractContextManager[None]]
"""The context in which a token or FIDO key works on a request, and may wait for a touch."""

Store = Callable[[TokenId], PinStore | None]
"""Returns where the PIN of a token may be kept; None where the token's owner does not want that."""

T = TypeVar("T")

Record = Callable[[Request, str, str], None]
"""Writes down a request, its outcome (`activity.Entry`) and why it did not succeed."""


class Wants(StrEnum):
    """What a request waits for a person for."""

    PIN = "pin"
    YES = "yes"
    TOUCH = "touch"


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that waits for a person."""

    request: Request
    wants: Wants


def no_store(_token: TokenId) -> None:
    """Keep no token's PIN."""


def no_waiting(_request: Request) -> AbstractContextManager[None]:
    """Tell nobody that a key waits."""
    return nullcontext()


class Gate:
    """Decides on requests and carries them out. Implements `model.Door`."""

    def __init__(
        self,
        *,
        tokens: Callable[[TokenId], Token],
        policy: Policy,
        prompter: Prompter,
        record: Record,
        timeout: float,
        store: Store = no_store,
        waiting: Waiting = no_waiting,
        tell: Tell = tell_nobody,
        arrival: Arrival = never,
    ) -> None:
        self._tokens = tokens
        self._policy = policy
        self._prompter = prompter
        self._record = record
        self._timeout = timeout
        self._store = store
        self._waiting = waiting
        self._tell = tell
        self._arrival = arrival
        self._pending: list[Pending] = []
        self._uses: list[EachUse] = []  # those that want their PIN now
        self._unlocks: dict[TokenId, Unlock] = {}
        self._dialogs = Tasks()
        self._one_touch = asyncio.Lock()
        self._one_question = WeakValueDictionary[Agreement, asyncio.Lock]()
        self._closed_because = ""

    def configure(self, policy: Policy, timeout: float) -> None:
        """Go by a reread configuration from now on; requests that wait keep their prompt."""
        self._policy = policy
        self._timeout = timeout

    async def perform(
        self, request: Request, operation: Operation, unnoticed: Operation | None = None
    ) -> bytes:
        """Carry out an operation, if policy and person agree. Raises Refused or TokenError.

        unnoticed: is carried out instead where a yes from before allows the request. It does not
        count as use of the token, so that a program about which nobody is asked any more does not
        prolong the token's login.
        """
        try:
            result = await self._pass(request, operation, unnoticed)
        except HsmAgentError as error:
            self._record_failure(request, error)
            raise
        self._record(request, USED, "")
        return result

    def _record_failure(self, request: Request, error: HsmAgentError) -> None:
        self._record(request, REFUSED if isinstance(error, Refused) else FAILED, str(error))

    def refused(self, request: Request, reason: str) -> None:
        """Record what a protocol refused by its own rules."""
        self._record(request, REFUSED, reason)

    def pending(self) -> tuple[Pending, ...]:
        """Return what waits for a person now, in order of arrival."""
        return tuple(self._pending)

    def wants_pin(self, token: TokenId) -> Request | None:
        """Return the first request that waits for a PIN from a terminal, for a login or a use."""
        for use in self._uses:
            if use.held and use.token.id == token:
                return use.request
        return self._unlocks[token].wants_pin() if token in self._unlocks else None

    async def unlock(
        self,
        token: TokenId,
        pin: bytearray | None,
        at_worst: PinState = PinState.COUNT_LOW,
        shown: Request | None = None,
        wish: Request | None = None,
    ) -> None:
        """Log in with a PIN that came unasked, from a terminal; all who wait for the login go on.

        at_worst: FINAL_TRY once the person has agreed to the last try. shown: the request that
        `wants_pin` returned, for whose use the PIN is meant as well. wish: the unlock as a request,
        for the log, should the PIN be wrong. Raises Refused or TokenError.
        """
        ours, typed = self._tokens(token), bytearray(pin or b"")

        def served() -> None:
            if token in self._unlocks:
                self._unlocks[token].served(shown, typed)

        def wrong() -> None:
            if (asked := shown or wish) is not None:
                self._note_wrong(asked, TYPED)

        try:
            if _needs_login(ours):
                self._policy.login_ended(token)
            store = self._store(token)
            tried = await log_in(ours, store, pin, at_worst, served=served, wrong=wrong)
            if shown is None:
                return
            use = next((each for each in self._uses if each.request is shown), None)
            if use is not None:
                await use.attempt(typed[:], at_worst)
            elif not tried:
                raise Refused("the request that wanted the PIN has gone; the PIN was not tried")
        finally:
            wipe(typed)

    async def raise_prompt(self, request: Request) -> None:
        """Ask for the PIN of a token although no operation waits: the method Unlock on D-Bus."""
        if request.key.token is None:
            return
        token = self._tokens(request.key.token)
        if _needs_login(token):
            try:
                await self._log_in(token, request)
            except HsmAgentError as error:
                self._record_failure(request, error)
                raise

    def allowed(self, key: Key) -> frozenset[PurposeKind]:
        """Return what a key may be used for at all, asked or not."""
        return self._policy.allowed(key)

    def lasts(self, request: Request) -> bool:
        """Whether a yes to this request holds for more than it, until the token's login ends."""
        return self._policy.holds_for(request) is not None

    def forget(self) -> None:
        """Forget remembered confirmations."""
        self._policy.forget()

    def close(self, reason: str) -> None:
        """Ask nobody anything from now on, as the screen is locked; refuse all who wait."""
        self._closed_because = reason
        self._policy.forget()
        for unlock in tuple(self._unlocks.values()):
            unlock.refuse(Refused(reason))
        self._dialogs.cancel(reason)

    def open(self) -> None:
        """Ask again: the screen is unlocked."""
        self._closed_because = ""

    @contextmanager
    def _waits(self, request: Request, wants: Wants) -> Iterator[None]:
        """Have the request among those that wait for a person while the block runs."""
        pending = Pending(request, wants)
        self._pending.append(pending)
        try:
            yield
        finally:
            self._pending.remove(pending)

    # -- the way through ---------------------------------------------------------------------

    async def _pass(
        self, request: Request, operation: Operation, unnoticed: Operation | None
    ) -> bytes:
        token = None if request.key.token is None else self._tokens(request.key.token)
        locked = token is not None and _needs_login(token)
        if token is not None and locked:
            self._policy.login_ended(token.id)
        decision = self._policy.decide(request)
        if decision.verdict is Verdict.DENY:
            raise Refused(decision.reason)
        confirm = decision.verdict is Verdict.CONFIRM
        if token is None:
            return await self._use(request, operation, None, confirm=confirm)
        try:
            if locked:
                return await self._use_after_login(request, operation, token)
            chosen = unnoticed if unnoticed is not None and decision.standing else operation
            return await self._use(request, chosen, token, confirm=confirm)
        except LoginNeeded:
            # Another program has ended the login meanwhile: ask once more. Nothing is tried again
            # without asking.
            self._policy.login_ended(token.id)
            return await self._use_after_login(request, operation, token)

    async def _use_after_login(self, request: Request, operation: Operation, token: Token) -> bytes:
        """Log in, then use the key. A yes that was given meanwhile for another request may count.

        A PIN that was typed for this request is its confirmation.
        """
        typed = await self._log_in(token, request)
        try:
            request = as_known_now(request, token)
            confirm = self._must_confirm(request) and typed is None
            return await self._use(request, operation, token, confirm=confirm, typed=typed)
        finally:
            wipe(typed or bytearray())

    async def _log_in(self, token: Token, request: Request) -> bytearray | None:
        """Wait for a login. Return the PIN that was typed for this request; see `Unlock.join`."""
        if self._closed_because:
            raise Refused(self._closed_because)
        unlock = self._unlocks.get(token.id)
        if unlock is not None and unlock.token is not token:
            # The module was loaded anew: no PIN can serve those who wait for the former `Token`.
            name = name_of(token.id)
            unlock.refuse(TokenGone(f"the module of {name} was loaded anew: try again"))
            unlock = None
        if unlock is None:
            asking = partial(self._how_to_ask, token.id)
            unlock = self._unlocks[token.id] = Unlock(token, asking)
        with self._waits(request, Wants.PIN):
            typed = await unlock.join(request)
        if typed is not None:
            self._policy.confirmed(request)
        return typed

    def _how_to_ask(self, token: TokenId) -> Asking:
        return Asking(
            *(self._prompter, self._timeout, self._store(token), self._tell, self._arrival),
            self._note_wrong,
        )

    def _note_wrong(self, request: Request, where_from: str) -> None:
        self._record(request, WRONG_PIN, where_from)

    async def _use(
        self,
        request: Request,
        operation: Operation,
        token: Token | None,
        *,
        confirm: bool,
        typed: bytearray | None = None,
    ) -> bytes:
        if request.key.always_authenticate and token is not None:
            return await self._ask(self._use_with_pin(request, operation, token, typed))
        if confirm:
            with self._waits(request, Wants.YES):
                await self._confirm(request)
        if token is None:
            return await self._use_without_token(request, operation)
        with self._waiting(request):
            return await operation(None)

    async def _confirm(self, request: Request) -> None:
        """Have a person agree. Requests for which one yes holds wait for the same question."""
        subject = self._policy.holds_for(request)
        if subject is None:
            await self._ask_to_confirm(request)
            return
        async with self._one_question.setdefault(subject, asyncio.Lock()):
            if self._must_confirm(request):
                await self._ask_to_confirm(request)

    def _must_confirm(self, request: Request) -> bool:
        """Whether a person must agree, as things stand now. Raises Refused."""
        decision = self._policy.decide(request)
        if decision.verdict is Verdict.DENY:
            raise Refused(decision.reason)
        return decision.verdict is Verdict.CONFIRM

    async def _ask_to_confirm(self, request: Request) -> None:
        if not await self._ask(self._prompter.confirm(words.confirm(request))):
            raise Cancelled("the person said no")
        self._policy.confirmed(request)

    async def _use_without_token(self, request: Request, operation: Operation) -> bytes:
        """Use an added key. Where a FIDO key wants its PIN, ask for that, and try it once."""
        try:
            return await self._touched(request, operation, None)
        except PinNeeded:
            with self._waits(request, Wants.PIN):
                pin = await self._ask(ask_for_one_pin(self._prompter, request))
        try:
            return await self._touched(request, operation, pin)
        finally:
            wipe(pin)

    async def _touched(
        self, request: Request, operation: Operation, pin: bytearray | None
    ) -> bytes:
        """Carry out an operation. Those that want a touch are carried out one at a time.

        Whoever touches a key means the request that was shown; the key cannot tell requests apart.
        """
        if not request.key.touch:
            return await operation(pin)
        with self._waits(request, Wants.TOUCH):
            async with self._one_touch:
                with self._waiting(request):
                    return await operation(pin)

    async def _use_with_pin(
        self, request: Request, operation: Operation, token: Token, typed: bytearray | None
    ) -> bytes:
        use = EachUse(request, operation, token, self._note_wrong)
        self._uses.append(use)
        try:
            with self._waits(request, Wants.PIN):
                return await use.carry_out(self._how_to_ask(token.id), typed)
        finally:
            self._uses.remove(use)

    async def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Put one question, unless the screen is locked; `close` takes it back."""
        if self._closed_because:
            question.close()
            raise Refused(self._closed_because)
        try:
            return await self._dialogs.start(question)
        except asyncio.CancelledError as error:
            asker = asyncio.current_task()
            if asker is not None and asker.cancelling():
                raise
            raise Refused(str(error)) from None


def _needs_login(token: Token) -> bool:
    return not token.logged_in and token.status().login_required
