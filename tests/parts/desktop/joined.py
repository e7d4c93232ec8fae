"""Our own bus adapter, joined to a bus for as long as a test needs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hsmagent.bus import Bus
from tests.parts.until import async_until


@asynccontextmanager
async def joined(address: str, *, wait: bool = True) -> AsyncIterator[Bus]:
    """Run a Bus; wait until it is connected, unless told not to."""
    bus = Bus(lambda: address)
    task = asyncio.create_task(bus.run())
    try:
        if wait:
            await async_until(lambda: bus.connected)
        yield bus
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
