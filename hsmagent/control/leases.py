"""Leases: the daemon lets go of a module's tokens, so that management has them to itself.

While a lease lasts, the module has no login and no worker, and the daemon does not look at its
tokens. A lease belongs to one connection and ends with it, and after ten minutes in any case;
`hsmagent unlock` of one of its tokens breaks it. Then the module is started anew, and what has
changed is seen.
"""

import asyncio
import logging
from dataclasses import dataclass

from hsmagent.control.conversation import Answer, Asked
from hsmagent.errors import Refused
from hsmagent.model import Clock, Peer, TokenStatus, token_name
from hsmagent.tasks import Tasks
from hsmagent.token.tokens import Tokens

log = logging.getLogger(__name__)

LONGEST = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a module, and since when by the clock. tokens: as they were when the lease began."""

    module: str
    tokens: tuple[TokenStatus, ...]
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

    async def foretell(self, asked: Asked) -> Answer:
        """Say which logins `let_go` of the module `module` would end. Raises Refused as it does."""
        return {"logged_out": _open(self._free(asked.text("module")))}

    async def let_go(self, asked: Asked) -> Answer:
        """Let go of the module `module`, until the connection ends; say which logins that ends."""
        path = asked.text("module")
        tokens = self._free(path)
        lease: Lease
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._longest, lambda: self._end(lease, "took too long"))
        lease = Lease(path, tokens, asked.peer(), self._clock(), timer)
        self._leases[path] = lease
        asked.at_end(lambda: self._end(lease, "is done"))
        log.info("%s: let go of for %s", path, lease.name)
        await self._tokens.lend(path)
        return {"logged_out": _open(tokens)}

    def _free(self, path: str) -> tuple[TokenStatus, ...]:
        """Return the module's tokens. Raises Refused when somebody has the lease."""
        lease = self._leases.get(path)
        if lease is not None:
            age = round(self._clock() - lease.since)
            raise Refused(
                f"{lease.name} manages a token of {path} since {age} s: wait for it, or break that"
                " with `hsmagent unlock`"
            )
        return tuple(status for status in self._tokens.statuses() if status.id.module == path)

    async def take_back(self, asked: Asked) -> Answer:
        """End the lease of `module`; the answer comes when its tokens have been looked at."""
        lease = self._leases.get(asked.text("module"))
        if lease is not None and lease.holder == asked.peer():
            self._forget(lease, "is done")
            await self._tokens.take_back(lease.module)
        return {}

    def tokens(self) -> list[TokenStatus]:
        """Return the tokens that are lent now, as they were before their lease."""
        return [status for lease in self._leases.values() for status in lease.tokens]

    async def end(self, module: str) -> None:
        """End the lease of a module, whoever holds it, and look at its tokens."""
        lease = self._leases.get(module)
        if lease is not None:
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
        """Remove a lease; return whether it was there."""
        if self._leases.get(lease.module) is not lease:
            return False
        del self._leases[lease.module]
        lease.timer.cancel()
        age = round(self._clock() - lease.since)
        log.info("%s: taken back after %d s, %s %s", lease.module, age, lease.name, why)
        return True


def _open(tokens: tuple[TokenStatus, ...]) -> list[str]:
    return [token_name(status.id) for status in tokens if status.logged_in]
