"""The readers as pcscd sees them, by a worker of their own: who has a card, and who uses it."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from hsmagent.errors import TokenError
from hsmagent.model import ModuleSpec
from hsmagent.token.member import Deadlines
from hsmagent.worker.link import Link
from hsmagent.worker.messages import CardReader, CardReaders, PollReaders
from hsmagent.worker.process import Program

Seen = tuple[CardReader, ...]

# With this variable set, a call to pcscd fails at once where it would wait for another program.
_NO_BLOCKING = "PCSCLITE_NO_BLOCKING"
AT_MOST = 3600  # seconds for which one request waits for a change
# In every fourth poll the SmartCard-HSMs are asked for their contents: a few commands to the card.
CONTENTS_POLLS = 4


def is_news(before: Seen, now: Seen) -> bool:
    """Whether a card came or went, or another program has let go of one.

    Then there may be other cards than before, or other objects on them.
    """
    return len(before) != len(now) or any(
        _card(old) != _card(new) or (_taken(old) and not _taken(new))
        for old, new in zip(before, now, strict=True)
    )


def unused(readers: Seen) -> Seen:
    """Return the readers as if our worker, which uses them, were gone."""
    return tuple(replace(reader, in_use=False, exclusive=False) for reader in readers)


def _taken(reader: CardReader) -> bool:
    return reader.in_use or reader.exclusive


def _card(reader: CardReader) -> tuple[bytes, bool, int]:
    """Return a value that changes when the card in the reader does."""
    return reader.name, reader.has_card, reader.insertions


class Contents:
    """What each SmartCard-HSM held when its token was last looked at."""

    def __init__(self) -> None:
        self._objects: dict[tuple[bytes, bool, int], bytes] = {}
        self._labels: dict[tuple[bytes, bool, int], bytes] = {}
        self._polls = 0

    def forget(self) -> None:
        """Take in that all tokens are looked at now. Labels stay, since they can seldom be read."""
        self._objects.clear()

    def due(self, readers: Seen) -> bool:
        """Whether it is time to ask for contents: when some are unknown, and now and then."""
        self._polls += 1
        unknown = any(each.has_card and _card(each) not in self._objects for each in readers)
        return unknown or self._polls % CONTENTS_POLLS == 0

    def changed(self, readers: Seen, *, ours: bool) -> bool:
        """Whether a card's contents have changed, and it may be looked at now; told once.

        It may not while another program is logged in, since a look ends that login. ours: it is we
        who are logged in.
        """
        news = False
        for reader in readers:
            contents, card = reader.contents, _card(reader)
            if contents is None:
                continue
            label = contents.label or self._labels.get(card, b"")
            now = contents.objects, label
            before = self._objects.get(card, now[0]), self._labels.get(card) or label
            if before != now:
                if contents.logged_in and not ours:
                    continue
                news = True
            self._objects[card], self._labels[card] = now
        return news


class Readers:
    """The worker that watches the readers, started when it is first needed. Raises TokenError."""

    def __init__(self, module: ModuleSpec, deadlines: Deadlines) -> None:
        self._program = Program(
            main="hsmagent.worker.readers",
            name="the watch over the card readers",
            env=(*module.env, (_NO_BLOCKING, "1")),
        )
        self._deadlines = deadlines
        self._link: Link | None = None
        self._last: Seen = ()
        self._polling: asyncio.Future[object] | None = None
        self._change: asyncio.Task[None] | None = None

    async def poll(self, *, contents: bool) -> Seen:
        """Return the state of the readers."""
        if self._change is not None and not self._change.done():
            return self._last  # a change would have been told
        link = await self._started()
        self._polling = link.request(PollReaders(contents), self._deadlines.poll)
        reply = await asyncio.shield(self._polling)
        if not isinstance(reply, CardReaders):
            raise TokenError("the card readers cannot be watched")
        self._last = reply.readers
        return self._last

    def change(self) -> "asyncio.Task[None]":
        """Return a task that ends when the state of the readers differs from what `poll` said."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_task(self._await())
        return self._change

    async def _await(self) -> None:
        with suppress(TokenError):
            wanted = PollReaders(contents=False, seconds=AT_MOST)
            await (await self._started()).request(wanted, AT_MOST + self._deadlines.poll)

    async def _started(self) -> Link:
        if self._link is None:
            self._link = link = Link(
                self._program,
                start_seconds=self._deadlines.start,
                on_room=lambda: None,
                on_lost=lambda _: self._forget(link),
            )
            await link.ready
        return self._link

    def _forget(self, link: Link) -> None:
        if self._link is link:
            self._link = None

    async def close(self) -> None:
        """End the worker, but not while it is connected to a card: pcscd would reset the card."""
        if self._change is not None:
            self._change.cancel()
        if self._polling is not None:
            await asyncio.wait([self._polling], timeout=self._deadlines.close)
        link = self._link
        if link is not None:
            link.kill("the agent is closing")
            await asyncio.wait([link.exited], timeout=self._deadlines.close)
