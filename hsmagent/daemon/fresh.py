"""Questions about tokens are answered with what the tokens hold now.

A key made with another program a moment ago is in the answer: before, the tokens that were changed
are looked at again. What a module takes longer for than a client is patient is answered without.
"""

import asyncio
from collections.abc import Callable

from hsmagent.daemon.connection import Conversation
from hsmagent.token.tokens import Tokens

PATIENCE = 3.0  # seconds


async def look_anew(tokens: Tokens) -> None:
    """See to it that the tokens' keys are those of now, as far as patience goes."""
    await asyncio.wait([asyncio.ensure_future(tokens.freshen())], timeout=PATIENCE)


class Fresh:
    """A conversation in which some frames wait until the tokens have been looked at.

    concerns: whether a frame asks what tokens hold. Implements `connection.Conversation`.
    """

    def __init__(
        self, inner: Conversation, tokens: Tokens, concerns: Callable[[bytearray], bool]
    ) -> None:
        self._inner = inner
        self._tokens = tokens
        self._concerns = concerns

    def respond_now(self, body: bytearray) -> bytes | None:
        """Return the reply, or None when `respond` must be awaited for it."""
        if self._concerns(body) and self._tokens.outdated():
            return None
        return self._inner.respond_now(body)

    async def respond(self, body: bytearray) -> bytes:
        """Return the reply; may wait."""
        if self._concerns(body):  # as a task: no list is an errand
            await look_anew(self._tokens)
        return await self._inner.respond(body)

    def is_errand(self, body: bytearray) -> bool:
        """Whether `respond` can be run as a `tasks.Errand`."""
        return self._inner.is_errand(body)

    def end(self) -> None:
        """Release what the conversation held."""
        self._inner.end()
