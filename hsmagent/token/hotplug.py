"""Tokens that come and go: cards, sticks, and readers whose daemon was not there at the start.

The workers are asked between requests, by a question that wakes no card: which slots have a token?
Only modules whose slots are hardware, or that have no slot at all, are asked; a software token
costs a stat of its files. A module that uses pcscd never notices when that starts anew: its
socket's age tells us, and a new worker does.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from hsmagent.errors import TokenError
from hsmagent.token import pcscd
from hsmagent.token.pool import Pool
from hsmagent.worker.messages import SlotInfo

log = logging.getLogger(__name__)

# A token appears within two seconds.
INTERVAL = 1.5


def movable(slots: tuple[SlotInfo, ...]) -> bool:
    """Whether tokens may come and go in a module with these slots."""
    return not slots or any(slot.hardware for slot in slots)


class Watch:
    """Watches one module; `close` ends it. freshen: looks at software tokens that were changed."""

    def __init__(
        self, pool: Pool, freshen: Callable[[], Awaitable[None]], interval: float = INTERVAL
    ) -> None:
        self._pool = pool
        self._freshen = freshen
        self._interval = interval
        self._slots: tuple[SlotInfo, ...] | None = None
        self._events = 0
        self._pcscd = pcscd.socket_of(os.environ | dict(pool.spec.env))
        self._pcscd_age = self._age()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop watching."""
        self._task.cancel()

    def looked(self, slots: tuple[SlotInfo, ...]) -> None:
        """Take in which slots there are."""
        self._slots = slots

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
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
            return
        polled = await self._pool.poll()
        known = tuple((slot.slot, slot.flags) for slot in self._slots or ())
        if polled.slots != known or polled.events != self._events:
            self._events = polled.events
            await self._pool.look(objects=True)

    def _age(self) -> tuple[int, int] | None:
        """Return what changes when pcscd makes its socket anew."""
        try:
            status = self._pcscd.stat()
        except OSError:
            return None
        return status.st_ino, status.st_ctime_ns
