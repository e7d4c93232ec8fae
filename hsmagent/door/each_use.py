"""One use of a key that wants its PIN for it (CKA_ALWAYS_AUTHENTICATE)."""

import asyncio

from hsmagent.door.dialog import ask_for_pin
from hsmagent.door.terminal import TYPED, Asking, Held, Wrong
from hsmagent.door.unlock import look_at_pin
from hsmagent.errors import PinIncorrect, Refused, Unavailable
from hsmagent.model import Operation, PinState, Request
from hsmagent.prompt import words
from hsmagent.token.login import check_tries
from hsmagent.token.token import Token


class EachUse:
    """A request for one use, until a PIN for it comes from the prompter or from a terminal.

    wrong: told of each PIN that is wrong. held: whether no prompter can ask, so that the request
    waits for a terminal.
    """

    def __init__(self, request: Request, operation: Operation, token: Token, wrong: Wrong) -> None:
        self.request = request
        self.token = token
        self.held = False
        self._operation = operation
        self._wrong = wrong
        self._result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def carry_out(self, asking: Asking, typed: bytearray | None) -> bytes:
        """Return the operation's result. typed: a PIN that was typed for this use; wiped.

        Raises Refused and TokenError.
        """
        if not typed:
            await look_at_pin(self.token)
        while not self._result.done():
            try:
                await ask_for_pin(
                    asking.prompter,
                    self.token.status,
                    lambda: [self.request],
                    self.attempt,
                    say=words.ask_pin_for_use,
                    typed=typed,
                )
            except Unavailable as why:
                await self._hold(why, asking)
            typed = None
        return self._result.result()

    async def _hold(self, why: Unavailable, asking: Asking) -> None:
        held = Held(self.token.id, why, asking)
        held.tell([self.request])
        self.held = True
        try:
            await held.until(asyncio.shield(self._result))
        finally:
            self.held = False

    async def attempt(self, pin: bytearray, at_worst: PinState) -> None:
        """Try the PIN on this use, once. Raises PinError, TokenError."""
        await self.token.look()  # others may have used up tries while the person typed
        check_tries(self.token.status(), at_worst)
        if self._result.done():
            raise Refused("the request has had its PIN already; this one was not tried")
        try:
            result = await self._operation(pin)
        except PinIncorrect:
            self._wrong(self.request, TYPED)
            raise
        if not self._result.done():
            self._result.set_result(result)
