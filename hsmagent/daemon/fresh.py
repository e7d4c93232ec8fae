"""Questions about tokens are answered with what the tokens hold now.

Before an answer, tokens that have changed are looked at again, so that a key which another program
made a moment ago is in it. The answer waits for a module no longer than PATIENCE.

The first question may have started the agent, by its socket, and a card takes seconds to be read.
So that question waits for the first look, unless the tokens' keys are remembered from before.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hsmagent.daemon.connection import Answer, Conversation
from hsmagent.frame import wipe
from hsmagent.token.tokens import Tokens

PATIENCE = 5.0  # seconds
# Seconds. ssh waits for its agent for ever, but sshd for a login two minutes, or often less.
FIRST_LOOK = 30.0
SHOWN = 10.0  # seconds; a person who asks is shown then that a module is still starting


async def look_anew(tokens: Tokens, first_look: float = FIRST_LOOK) -> None:
    """See to it that the tokens' keys are those of now, as far as patience goes.

    first_look: how long (seconds) to wait for tokens of which nothing is known yet.
    """
    if tokens.awaited:
        await _at_most(first_look, tokens.looked())
    await _at_most(PATIENCE, tokens.freshen())


class Fresh:
    """A conversation in which some frames wait until the tokens have been looked at.

    only: the frame that asks what tokens hold; None: they all do, and may wait anyway. first_look:
    see `look_anew`. Implements `connection.Conversation`.
    """

    def __init__(
        self,
        inner: Conversation,
        tokens: Tokens,
        only: bytes | None = None,
        first_look: float = FIRST_LOOK,
    ) -> None:
        self._inner = inner
        self._tokens = tokens
        self._only = only
        self._first_look = first_look

    def answer(self, body: bytearray) -> Answer:
        """Return the reply, or the work that gives it."""
        if self._only is not None and (body != self._only or not self._tokens.outdated()):
            return self._inner.answer(body)
        return self._answer_after_a_look(body)

    async def _answer_after_a_look(self, body: bytearray) -> bytes:
        try:
            await look_anew(self._tokens, self._first_look)
        except asyncio.CancelledError:  # the peer hung up; the frame may hold a PIN
            wipe(body)
            raise
        answer = self._inner.answer(body)
        return answer if isinstance(answer, bytes) else await answer

    def end(self) -> None:
        """Release what the conversation held."""
        self._inner.end()


async def _at_most(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """Wait for work, for so many seconds at most. It goes on after that."""
    await asyncio.wait([asyncio.ensure_future(work)], timeout=seconds)
