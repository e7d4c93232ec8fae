"""Connections to a bus."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from hsmagent.bus import Bus
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.joined import joined

Join = Callable[..., Awaitable[Bus]]


@pytest.fixture
async def join(private: PrivateBus) -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:

        async def enter(address: str = "", *, wait: bool = True) -> Bus:
            context = joined(address or private.address, wait=wait)
            return await stack.enter_async_context(context)

        yield enter
