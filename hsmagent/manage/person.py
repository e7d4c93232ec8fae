"""What management asks a person, and says; the terminal and `--stdin` are behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Protocol

from hsmagent.errors import Cancelled

_TICK, _NEARLY = 0.2, 0.99  # seconds between two looks; of what usually takes less


class Person(Protocol):
    """Who typed the command."""

    def secret(self, question: str, *, again: str = "") -> bytearray:
        """Ask for a PIN or password without showing it; `again` asks a second time, and compares.

        The caller wipes it. Raises HsmAgentError when there is nowhere to ask.
        """
        ...

    def agrees(self, warning: str, word: str) -> bool:
        """Show what will be lost and ask for `word` to be typed; a `--yes` answers for itself."""
        ...

    def asks(self, question: str) -> str:
        """Ask for a line that may be seen. Raises HsmAgentError where only `--stdin` is there."""
        ...

    def say(self, text: str) -> None:
        """Tell what happens; not what the command is asked for, which is its output."""
        ...

    def shows_once(self, text: str) -> None:
        """Show a secret that is to be noted; where somebody looks on, until it was."""
        ...

    def progress(self, what: str) -> AbstractContextManager[Callable[[float | None], None]]:
        """Show how far `what` is while the context lasts.

        It gives what is told, from 0 to 1, or None where nobody knows.
        """
        ...


@asynccontextmanager
async def waiting(person: Person, what: str, usually: float = 0.0) -> AsyncIterator[None]:
    """Show that something is waited for; usually: the seconds that it takes, 0 for unknown."""
    with person.progress(what) as tell:
        ticking = asyncio.create_task(_tick(tell, usually))
        try:
            yield
        finally:
            ticking.cancel()


async def _tick(tell: Callable[[float | None], None], usually: float) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_TICK)
        past = time.monotonic() - began
        tell(min(past / usually, _NEARLY) if usually else None)


def confirm(person: Person, warning: str, word: str) -> None:
    """Return if the person wants it. Raises Cancelled."""
    if not person.agrees(warning, word):
        raise Cancelled("nothing was changed")
