"""Tokens that come and go: cards, sticks, and readers whose daemon was not there at the start.

The workers are asked between requests, by a question that wakes no card: which slots have a token?
Only modules whose slots are hardware, or that have no slot at all, are asked; for a software token
nobody wakes up until the kernel tells of a change to its files, and for cards that nobody uses
until pcscd tells of one. A module that uses pcscd never notices when that starts anew: its socket's
age tells us, and a new worker does.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent.errors import TokenError, WorkerDied
from hsmagent.token import pcscd
from hsmagent.token.failures import told
from hsmagent.token.pool import Pool
from hsmagent.token.readers import Readers, is_news, unused
from hsmagent.worker.messages import Failed, Poll, Polled, SlotInfo

log = logging.getLogger(__name__)

# A token appears within two seconds.
INTERVAL = 1.5


def movable(slots: tuple[SlotInfo, ...]) -> bool:
    """Whether tokens may come and go in a module with these slots."""
    return not slots or any(slot.hardware for slot in slots)


class Watch:
    """Watches one module; `close` ends it.

    freshen: looks at software tokens that were changed. told: `rouse` is called when their files,
    or pcscd's socket, may be others.
    """

    def __init__(self, pool: Pool, freshen: Callable[[], Awaitable[None]], *, told: bool) -> None:
        self._pool = pool
        self._freshen = freshen
        self._told = told
        self._news = asyncio.Event()
        self._slots: tuple[SlotInfo, ...] | None = None
        self._events = 0
        self._readers = Readers(pool.spec, pool.deadlines)
        self._seen: Polled | None = None
        self._pcscd = pcscd.socket_of(os.environ | dict(pool.spec.env))
        self._pcscd_age = self._age()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await self._readers.close()

    def looked(self, slots: tuple[SlotInfo, ...]) -> None:
        """Take in which slots there are."""
        self._slots = slots
        self.rouse()

    def rouse(self) -> None:
        """Look again soon: something may have changed."""
        self._news.set()

    async def _turn(self) -> None:
        """Wait until it is worth looking: for what tells of itself, else for some time."""
        if self._pool.stale or not self._told:
            pass
        elif self._slots is None or not movable(self._slots):
            await self._news.wait()
        elif self._pool.at_rest:
            await self._card_news()
        self._news.clear()
        await asyncio.sleep(INTERVAL)

    async def _card_news(self) -> None:
        """Wait until a reader, a card or pcscd came or went, or somebody looks at the tokens."""
        news = asyncio.ensure_future(self._news.wait())
        waiting: set[asyncio.Future[Any]] = {news}
        if self._readers.served or self._age() is not None:
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
        polled = await self._poll()
        known = tuple((slot.slot, slot.flags) for slot in self._slots or ())
        if cards_are_others or polled.slots != known or polled.events != self._events:
            self._events = polled.events
            await self._pool.look(objects=True)
        elif self._pool.uses_pcsc:
            self._pool.rest()
            if self._pool.at_rest and self._seen is not None:
                self._seen = unused(self._seen)

    async def _poll(self) -> Polled:
        """Ask a worker of the module which slots have a token. Raises WorkerDied, TokenError."""
        lead = next((member for member in self._pool.members if member.up), None)
        name = f"the module {self._pool.spec.path}"
        if lead is None or lead.link is None:
            raise WorkerDied(self._pool.last_error or f"{name} is not running")
        reply = await lead.link.request(Poll(), self._pool.deadlines.poll)
        if isinstance(reply, Polled):
            return reply
        what = told(reply) if isinstance(reply, Failed) else "an answer to something else"
        # A module that cannot even list its slots is past help; a new one may not be.
        lead.link.kill(f"{name} does not list its slots: {what}")
        raise TokenError(self._pool.last_error)

    async def _look_at_readers(self) -> bool:
        """Whether cards came or went, or were used by others while we held none."""
        before, now = self._seen, await self._readers.poll()
        self._seen = now
        if before is None:
            return False
        ours = not self._pool.at_rest
        return is_news(unused(before) if ours else before, unused(now) if ours else now)

    def _age(self) -> tuple[int, int] | None:
        """Return what changes when pcscd makes its socket anew."""
        try:
            status = self._pcscd.stat()
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns
