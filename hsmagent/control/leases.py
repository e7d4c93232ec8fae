"""Leases: the daemon lets go of a module's tokens, so that management has them to itself.

Logins end, the workers end, nobody looks. A lease belongs to one connection and ends with it, and
after ten minutes in any case; `hsmagent unlock` breaks it. Then the module is started anew, which
is also how what was changed meanwhile is seen.
"""

import asyncio
import logging
from dataclasses import dataclass

from hsmagent.control.conversation import Answer, Asked
from hsmagent.errors import Refused
from hsmagent.model import Clock, Peer, token_name
from hsmagent.tasks import Tasks
from hsmagent.token.tokens import Tokens

log = logging.getLogger(__name__)

LONGEST = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a module, and since when by the clock."""

    module: str
    holder: Peer
    since: float
    timer: asyncio.TimerHandle

    @property
    def name(self) -> str:
        """The holder for a person."""
        return f"{self.holder.process.program} (process {self.holder.process.pid})"


class Leases:
    """All leases: at most one for each module."""

    def __init__(self, tokens: Tokens, clock: Clock, longest: float = LONGEST) -> None:
        self._tokens = tokens
        self._clock = clock
        self._longest = longest
        self._leases: dict[str, Lease] = {}
        self._tasks = Tasks()

    async def let_go(self, asked: Asked) -> Answer:
        """Let go of the module `module`, until the connection ends; say which logins that ends."""
        path = asked.text("module")
        if path in self._leases:
            lease = self._leases[path]
            age = round(self._clock() - lease.since)
            raise Refused(
                f"{lease.name} manages a token of {path} since {age} s: wait for it, or break that"
                " with `hsmagent unlock`"
            )
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._longest, lambda: self._end(lease, "took too long"))
        lease = Lease(path, asked.peer(), self._clock(), timer)
        self._leases[path] = lease
        asked.at_end(lambda: self._end(lease, "is done"))
        open_ones = [
            token_name(status.id)
            for status in self._tokens.statuses()
            if status.id.module == path and status.logged_in
        ]
        log.info("%s: let go of for %s", path, lease.name)
        await self._tokens.lend(path)
        return {"logged_out": open_ones}

    async def take_back(self, asked: Asked) -> Answer:
        """End the lease of `module`; the answer comes when its tokens have been looked at."""
        lease = self._leases.get(asked.text("module"))
        if lease is not None and lease.holder == asked.peer():
            self._forget(lease, "is done")
            await self._tokens.take_back(lease.module)
        return {}

    async def break_all(self) -> None:
        """End every lease, whoever holds it."""
        for lease in tuple(self._leases.values()):
            self._forget(lease, "lost it to `hsmagent unlock`")
            await self._tokens.take_back(lease.module)

    def shown(self) -> list[Answer]:
        """Return every lease for `status`."""
        now = self._clock()
        return [
            {"module": lease.module, "holder": lease.name, "age": now - lease.since}
            for lease in self._leases.values()
        ]

    def _end(self, lease: Lease, why: str) -> None:
        if self._forget(lease, why):
            self._tasks.start(self._tokens.take_back(lease.module))

    def _forget(self, lease: Lease, why: str) -> bool:
        """Take a lease off the books; say whether it was there."""
        if self._leases.get(lease.module) is not lease:
            return False
        del self._leases[lease.module]
        lease.timer.cancel()
        log.info("%s: taken back, %s %s", lease.module, lease.name, why)
        return True
