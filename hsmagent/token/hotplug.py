"""Tokens that come and go: cards, sticks, and readers whose pcscd was not there at the start.

The workers are asked, between requests, which slots have a token; that wakes no card. Only modules
whose slots are hardware, or that have no slot at all, are asked. For a software token nothing is
done until the kernel tells of a change to its files, and for readers without a card until pcscd
tells of one.

A module that uses pcscd does not notice when pcscd starts anew: the age of pcscd's socket tells us,
and the module's worker is replaced. Nor does the module notice what other programs do to a card: we
look again when another program has let go of a card, or a SmartCard-HSM's own list has changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent.errors import TokenError
from hsmagent.token import pcscd
from hsmagent.token.failures import told
from hsmagent.token.pool import Pool
from hsmagent.token.readers import Contents, Readers, Seen, is_news, unused
from hsmagent.worker.link import Link
from hsmagent.worker.messages import Failed, Poll, Polled, SlotInfo
from hsmagent.worker.process import worker_environment

log = logging.getLogger(__name__)

INTERVAL = 1.5  # seconds between two looks, so that a token appears within two


def movable(slots: tuple[SlotInfo, ...]) -> bool:
    """Whether tokens may come and go in a module with these slots."""
    return not slots or any(slot.hardware for slot in slots)


class Watch:
    """Watches one module; `close` ends it.

    freshen: looks at software tokens that were changed. on_readers: takes the state of the readers.
    told: `rouse` will be called when the tokens' files, or pcscd's socket, may have changed.
    """

    def __init__(
        self,
        pool: Pool,
        freshen: Callable[[], Awaitable[None]],
        on_readers: Callable[[Seen], None],
        *,
        told: bool,
    ) -> None:
        self._pool = pool
        self._freshen = freshen
        self._on_readers = on_readers
        self._told = told
        self._news = asyncio.Event()
        self._slots: tuple[SlotInfo, ...] | None = None
        self._events: tuple[Link | None, int] = (None, 0)
        self._readers = Readers(pool.spec, pool.deadlines)
        self._seen: Seen | None = None
        self._contents = Contents()
        self._spawned = 0
        self._pcscd = pcscd.socket_of(worker_environment(pool.spec.env))
        self._pcscd_age = self._age()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await self._readers.close()

    def looked(self, slots: tuple[SlotInfo, ...]) -> None:
        """Take in the slots that a look found."""
        self._slots = slots
        self.rouse()

    def rouse(self) -> None:
        """Look again soon: something may have changed."""
        self._news.set()

    async def _turn(self) -> None:
        """Wait until it is worth looking again: until something tells of a change, or INTERVAL."""
        if self._pool.stale or not self._told:
            pass
        elif self._slots is None or not movable(self._slots):
            await self._news.wait()
        elif self._pool.at_rest and not any(reader.has_card for reader in self._seen or ()):
            await self._card_news()
        self._news.clear()
        await asyncio.sleep(INTERVAL)

    async def _card_news(self) -> None:
        """Wait until a reader, a card or pcscd came or went, or somebody looks at the tokens."""
        news = asyncio.ensure_future(self._news.wait())
        waiting: set[asyncio.Future[Any]] = {news}
        if self._age() is not None:
            waiting.add(self._readers.change())
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    async def _run(self) -> None:
        while True:
            await self._turn()
            if self._slots is None:
                continue
            try:
                await (self._check() if movable(self._slots) else self._freshen())
                self._pool.retire_stale()
            except TokenError as error:
                log.info("%s", error)

    async def _check(self) -> None:
        age = self._age()
        if age != self._pcscd_age:
            self._pcscd_age = age
            self._pool.restart("pcscd was started anew, and the module's worker with it")
            if self._pool.at_rest:
                await self._pool.look(objects=True)
            return
        cards_are_others = self._pool.uses_pcsc and await self._look_at_readers()
        if self._pool.at_rest:
            if cards_are_others:
                await self._pool.look(objects=True)
            return
        link = next((member.link for member in self._pool.members if member.up), None)
        if link is None:
            return  # one is being started, or cannot be
        polled = await self._poll(link)
        known = tuple((slot.slot, slot.flags) for slot in self._slots or ())
        if cards_are_others or polled.slots != known or polled.events != self._events_of(link):
            self._events = link, polled.events
            await self._pool.look(objects=True)
        elif self._pool.uses_pcsc:
            self._pool.rest()
            if self._pool.at_rest and self._seen is not None:
                self._seen = unused(self._seen)

    def _events_of(self, link: Link) -> int:
        """Return how many events are known of this worker; each worker counts from 0."""
        known_of, events = self._events
        return events if known_of is link else 0

    async def _poll(self, link: Link) -> Polled:
        """Ask a worker of the module which slots have a token. Raises WorkerDied, TokenError."""
        name = f"the module {self._pool.spec.path}"
        reply = await link.request(Poll(), self._pool.deadlines.poll)
        if isinstance(reply, Polled):
            return reply
        what = told(reply) if isinstance(reply, Failed) else "an answer to something else"
        # A module that cannot even list its slots does nothing any more; in a new worker it may.
        link.kill(f"{name} does not list its slots: {what}")
        raise TokenError(self._pool.last_error)

    async def _look_at_readers(self) -> bool:
        """Whether cards came or went, or other programs used them while we held none."""
        before, now = self._seen, await self.see_readers()
        if before is None:
            return False
        ours = not self._pool.at_rest
        if is_news(unused(before) if ours else before, unused(now) if ours else now):
            return True
        if self._contents.changed(now, ours=self._pool.logged_in):
            # OpenSC reads a card only once in a process, so it takes a new one.
            await self._pool.renew("a card holds something else now")
        return False

    async def see_readers(self) -> Seen:
        """Return the state of the readers, and tell `on_readers`. Raises TokenError."""
        if self._spawned != self._pool.spawned:
            self._spawned = self._pool.spawned
            self._contents.forget()  # a new worker has read what there is
        due = self._contents.due(self._seen or ())
        self._seen = await self._readers.poll(contents=due)
        self._on_readers(self._seen)
        return self._seen

    def _age(self) -> tuple[int, int] | None:
        """Return a value that changes when pcscd makes its socket anew; None: there is none."""
        try:
            status = self._pcscd.stat()
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns
