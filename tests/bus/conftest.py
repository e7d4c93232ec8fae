"""Buses, and connections to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from hsmagent.bus import Bus
from tests.parts.bus import PrivateBus, private_bus
from tests.parts.until import async_until

Join = Callable[..., Awaitable[Bus]]


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


@pytest.fixture
def private() -> Iterator[PrivateBus]:
    with private_bus() as bus:
        bus.start()
        yield bus


@pytest.fixture
async def join(private: PrivateBus) -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:

        async def enter(address: str = "", *, wait: bool = True) -> Bus:
            context = joined(address or private.address, wait=wait)
            return await stack.enter_async_context(context)

        yield enter
