"""Buses, and connections to them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from hsmagent.bus import Bus
from tests.parts.bus import PrivateBus, private_bus
from tests.parts.joined import joined

Join = Callable[..., Awaitable[Bus]]


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
