"""When no prompter can ask, requests wait for a while: a person may run `hsmagent unlock`."""

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from hsmagent.errors import TimedOut, Unavailable
from hsmagent.model import Request, TokenId, TokenStatus, name_of, token_name
from hsmagent.prompt.base import Prompter

log = logging.getLogger(__name__)


class PinStore(Protocol):
    """Where a token's PIN may be kept, if the token's owner wants that (`prompt.pin_store`)."""

    async def take(self, status: TokenStatus) -> bytearray | None:
        """Return the PIN for exactly one C_Login, or None."""

    def keep(self, token: TokenId) -> None:
        """Keep the PIN which `take` gave: the token accepted it, or it was not tried."""

    async def forget(self, token: TokenId) -> bool:
        """Delete the PIN. Return whether it is deleted for sure."""

    async def save(self, token: TokenId, pin: bytearray) -> bool:
        """Keep a PIN that the token has just accepted. Return whether it is kept."""


Tell = Callable[[Request, str], None]
"""Tells whoever made a request that it waits, in a sentence that says what for."""

Wrong = Callable[[Request, str], None]
"""Notes that the PIN for a request was wrong; the sentence says where that PIN came from."""

TYPED = "a wrong PIN was typed"
KEPT = "the PIN that the keyring keeps was wrong, and is forgotten"

Arrival = Callable[[], Awaitable[object]]
"""Returns when a prompter has come that may be able to ask."""


def tell_nobody(_request: Request, _sentence: str) -> None:
    """Let requests wait in silence."""


def note_nothing(_request: Request, _sentence: str) -> None:
    """Keep no note of wrong PINs."""


async def never() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Asking:
    """How a token's PIN is had: who asks, how long (seconds) to wait for a terminal, a store.

    wrong: told of each PIN that is wrong.
    """

    prompter: Prompter
    timeout: float
    store: PinStore | None = None
    tell: Tell = tell_nobody
    arrival: Arrival = never
    wrong: Wrong = note_nothing


class Held:
    """Requests for one token that wait since no prompter can ask for its PIN.

    why: what the prompters said.
    """

    def __init__(self, token: TokenId, why: Unavailable, asking: Asking) -> None:
        self._token = token
        self._asking = asking
        self._command = shlex.join(("hsmagent", "unlock", token_name(token)))
        log.warning(
            "no window can ask for the PIN of the token %s (%s); run `%s` within %d seconds",
            name_of(token),
            why,
            self._command,
            asking.timeout,
        )

    def tell(self, requests: Iterable[Request]) -> None:
        """Tell whoever made these requests."""
        name = name_of(self._token)
        sentence = (
            f"waiting for the PIN of {name}, which no window can ask for; run `{self._command}`"
        )
        for request in requests:
            self._asking.tell(request, sentence)

    async def until(self, *ends: Awaitable[object]) -> None:
        """Wait until one of these is done, or a prompter arrives. Raises TimedOut."""
        waiting = [asyncio.ensure_future(each) for each in (*ends, self._asking.arrival())]
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=self._asking.timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waiting:
                each.cancel()
        if not done:
            name = name_of(self._token)
            raise TimedOut(
                f"no window can ask for the PIN of {name}; run `{self._command}` and try again"
            )
