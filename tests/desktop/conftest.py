"""A bus that plays both the system's and the session's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from hsmagent.bus import Bus
from tests.parts.bus import PrivateBus, private_bus
from tests.parts.until import async_until


@pytest.fixture
def private() -> Iterator[PrivateBus]:
    with private_bus() as bus:
        bus.start()
        yield bus


async def joined(private: PrivateBus) -> AsyncIterator[Bus]:
    bus = Bus(lambda: private.address)
    task = asyncio.create_task(bus.run())
    await async_until(lambda: bus.connected)
    yield bus
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def bus(private: PrivateBus) -> AsyncIterator[Bus]:
    """Ours."""
    async for each in joined(private):
        yield each


@pytest.fixture
async def other(private: PrivateBus) -> AsyncIterator[Bus]:
    """Another program's: the desktop, or a stranger."""
    async for each in joined(private):
        yield each
