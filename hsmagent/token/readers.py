"""The readers as pcscd sees them, by a worker of their own: who has a card, and who uses it."""

import asyncio

from hsmagent.errors import TokenError
from hsmagent.model import ModuleSpec
from hsmagent.token.member import Deadlines
from hsmagent.worker.link import Link
from hsmagent.worker.messages import READER_IN_USE, Poll, Polled
from hsmagent.worker.process import Program


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

    async def poll(self) -> Polled:
        """Return how the readers are now."""
        if self._link is None:
            self._link = link = Link(
                self._program,
                start_seconds=self._deadlines.start,
                on_room=lambda: None,
                on_lost=lambda _: self._forget(link),
            )
            await link.ready
        reply = await self._link.request(Poll(), self._deadlines.poll)
        if not isinstance(reply, Polled):
            raise TokenError("the card readers cannot be watched")
        return reply

    def _forget(self, link: Link) -> None:
        if self._link is link:
            self._link = None

    async def close(self) -> None:
        """End the worker."""
        link = self._link
        if link is not None:
            link.kill("the agent is closing")
            await asyncio.wait([link.exited], timeout=self._deadlines.close)
