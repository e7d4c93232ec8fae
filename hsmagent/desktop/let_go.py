"""When to let go: the screen is locked, or the machine goes to sleep.

A signal only takes authority away: it ends logins and closes dialogs. An unlocked screen gives no
login back; a person can be asked again, once every sender that said "locked" has said "unlocked".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum

from hsmagent.bus import quietly
from hsmagent.tasks import Tasks

log = logging.getLogger(__name__)

# logind goes to sleep after five seconds whatever we do (InhibitDelayMaxSec in logind.conf(5)).
LET_GO_TIMEOUT = 4.0


class Why(StrEnum):
    """Why tokens are let go; the words of the configuration's `let_go`."""

    SCREEN_LOCK = "screen-lock"
    SUSPEND = "suspend"


SENTENCES = {
    Why.SCREEN_LOCK: "the screen is locked",
    Why.SUSPEND: "the computer goes to sleep",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Whom the watchers tell.

    let_go: log out of the tokens that the configuration lets go of for this reason.
    closed: ask nobody anything from now on, and why; "" = ask again.
    """

    let_go: Callable[[Why], Awaitable[None]]
    closed: Callable[[str], None]


class Closed:
    """Who says that the screen is locked or the machine sleeps; one of them is enough."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._because: dict[str, Why] = {}
        self._errands = Tasks()

    def claim(self, source: str, why: Why) -> None:
        """Take a source's word that the screen is locked, say: close, let go in the background."""
        if source not in self._because:
            self.enter(source, why)
            self.spawn(self.let_go(why))

    def enter(self, source: str, why: Why) -> None:
        """Close, without letting go of the tokens yet."""
        self._because[source] = why
        self._tell()

    def drop(self, source: str) -> None:
        """Take a source's word that this is over: ask again, unless another source disagrees."""
        if self._because.pop(source, None) is not None:
            self._tell()

    async def let_go(self, why: Why) -> None:
        """Log out, within the time that logind gives."""
        log.info("%s: logging out", SENTENCES[why])
        try:
            async with asyncio.timeout(LET_GO_TIMEOUT):
                await self._told.let_go(why)
        except TimeoutError:
            log.warning("the tokens did not log out within %g seconds", LET_GO_TIMEOUT)

    def _tell(self) -> None:
        reasons = [SENTENCES[why] for why in self._because.values()]
        self._told.closed(reasons[0] if reasons else "")

    # -- work in the background ----------------------------------------------------------------

    def spawn(self, errand: Coroutine[None, None, None]) -> None:
        """Do in the background what a signal calls for. When the bus fails, the log is told."""
        self._errands.start(quietly(errand))

    async def stop(self) -> None:
        """End what is under way."""
        self._errands.cancel()
        await self._errands.ended()
