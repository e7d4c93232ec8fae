"""Two programs on a bus that plays both the system's and the session's."""

from collections.abc import AsyncIterator

import pytest

from hsmagent.bus import Bus
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.joined import joined


@pytest.fixture
async def bus(private: PrivateBus) -> AsyncIterator[Bus]:
    """Ours."""
    async with joined(private.address) as bus:
        yield bus


@pytest.fixture
async def other(private: PrivateBus) -> AsyncIterator[Bus]:
    """Another program's: the desktop, or a stranger."""
    async with joined(private.address) as bus:
        yield bus
