"""What management asks a person, and says; the terminal and `--stdin` are behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from hsmagent.errors import Cancelled
from hsmagent.frame import wipe

_TICK = 0.2  # seconds
_NEARLY = 0.99  # the part shown for work that takes longer than it usually does

S = TypeVar("S", bytearray, bytearray | None)


class Person(Protocol):
    """Who typed the command."""

    def secret(self, question: str, *, again: str = "") -> bytearray:
        """Ask for a PIN or password without showing it; the caller wipes it.

        again: asks a second time, and compares, for a secret that is chosen now; no control
        character may be in that. Raises HsmAgentError, also when there is nowhere to ask.
        """

    def agrees(self, warning: str, word: str) -> bool:
        """Show what will be lost and ask for `word` to be typed; a `--yes` answers for itself."""

    def asks(self, question: str) -> str:
        """Ask for a line that may be seen. Raises HsmAgentError where only `--stdin` is there."""

    def say(self, text: str) -> None:
        """Tell what happens. What a command was asked for is its output, and not told here."""

    def shows_once(self, text: str) -> None:
        """Show a secret until the person has noted it; without a terminal, print it."""

    def progress(self, what: str) -> AbstractContextManager[Callable[[float | None], None]]:
        """Show how far `what` is while the context lasts.

        The context gives a function that takes the part done, from 0 to 1, or None if unknown.
        """


@contextmanager
def wiped(secret: S) -> Iterator[S]:
    """Give a secret to the block, and wipe it at the end; None is one typed on the reader."""
    try:
        yield secret
    finally:
        if secret is not None:
            wipe(secret)


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
    """Return if the person agrees to what the warning says. Raises Cancelled."""
    if not person.agrees(warning, word):
        raise Cancelled("nothing was changed")
