"""Wait on a condition, never on a time that is hoped to be long enough."""

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return when `condition()` is true; raises TimeoutError when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.02)


async def async_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Like `until`, while the event loop goes on."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
