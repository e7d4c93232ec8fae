"""The readers as pcscd sees them, by a worker of their own: who has a card, and who uses it."""

import asyncio
from contextlib import suppress

from hsmagent.errors import TokenError
from hsmagent.model import ModuleSpec
from hsmagent.token.member import Deadlines
from hsmagent.worker.link import Link
from hsmagent.worker.messages import READER_IN_USE, Await, Poll, Polled
from hsmagent.worker.process import Program

AT_MOST = 3600  # seconds for which a change is waited for at a time


def is_news(before: Polled, now: Polled) -> bool:
    """Whether cards may be others than before, or hold something else.

    That is: a card came or went, or some other program has let go of one.
    """
    if before.events != now.events or len(before.slots) != len(now.slots):
        return True
    return any(
        old & ~READER_IN_USE != new & ~READER_IN_USE or old & READER_IN_USE > new & READER_IN_USE
        for (_, old), (_, new) in zip(before.slots, now.slots, strict=True)
    )


def unused(polled: Polled) -> Polled:
    """Return the readers as they are when the program that uses them, ours, is gone."""
    return Polled(
        polled.events, tuple((number, state & ~READER_IN_USE) for number, state in polled.slots)
    )


class Readers:
    """Asks the worker, which is started when it is first needed. Raises TokenError."""

    def __init__(self, module: ModuleSpec, deadlines: Deadlines) -> None:
        self._program = Program(
            main="hsmagent.worker.readers",
            name="the watch over the card readers",
            env=module.env,
        )
        self._deadlines = deadlines
        self._link: Link | None = None
        self._last: Polled | None = None
        self._change: asyncio.Task[None] | None = None

    @property
    def served(self) -> bool:
        """Whether pcscd was there when it was last asked."""
        return self._last is not None and self._last.events != 0

    async def poll(self) -> Polled:
        """Return how the readers are now."""
        if self._last is None or self._change is None or self._change.done():
            self._last = await self._ask(Poll(), 0)
        return self._last  # else they are as they were: a change would have been told

    def change(self) -> "asyncio.Task[None]":
        """Return what ends when the readers are others than `poll` said."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_task(self._await())
        return self._change

    async def _await(self) -> None:
        with suppress(TokenError):
            self._last = await self._ask(Await(AT_MOST), AT_MOST)

    async def _ask(self, request: Poll | Await, seconds: float) -> Polled:
        if self._link is None:
            self._link = link = Link(
                self._program,
                start_seconds=self._deadlines.start,
                on_room=lambda: None,
                on_lost=lambda _: self._forget(link),
            )
            await link.ready
        reply = await self._link.request(request, seconds + self._deadlines.poll)
        if not isinstance(reply, Polled):
            raise TokenError("the card readers cannot be watched")
        return reply

    def _forget(self, link: Link) -> None:
        if self._link is link:
            self._link = None

    async def close(self) -> None:
        """End the worker."""
        if self._change is not None:
            self._change.cancel()
        link = self._link
        if link is not None:
            link.kill("the agent is closing")
            await asyncio.wait([link.exited], timeout=self._deadlines.close)
