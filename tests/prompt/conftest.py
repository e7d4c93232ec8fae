"""Dialogs that a test answers for, and the parts that show them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from hsmagent.bus import Bus
from tests.parts.bus import PrivateBus, private_bus
from tests.parts.joined import joined
from tests.prompt.dialogs import FakeDialog


@pytest.fixture
def dialog() -> FakeDialog:
    return FakeDialog()


@pytest.fixture
def private() -> Iterator[PrivateBus]:
    with private_bus() as bus:
        bus.start()
        yield bus


@pytest.fixture
async def bus(private: PrivateBus) -> AsyncIterator[Bus]:
    async with joined(private.address) as bus:
        yield bus


@pytest.fixture
async def other_bus(private: PrivateBus) -> AsyncIterator[Bus]:
    async with joined(private.address) as bus:
        yield bus
