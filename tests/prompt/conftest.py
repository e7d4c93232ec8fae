"""Dialogs that a test answers for, and the parts that show them."""

from collections.abc import AsyncIterator

import pytest

from hsmagent.bus import Bus
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.joined import joined
from tests.prompt.dialogs import FakeDialog


@pytest.fixture
def dialog() -> FakeDialog:
    return FakeDialog()


@pytest.fixture
async def bus(private: PrivateBus) -> AsyncIterator[Bus]:
    async with joined(private.address) as bus:
        yield bus


@pytest.fixture
async def other_bus(private: PrivateBus) -> AsyncIterator[Bus]:
    async with joined(private.address) as bus:
        yield bus
