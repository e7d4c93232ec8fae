"""What holds for every test."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.parts.desktop.bus import PrivateBus, private_bus

# The same examples in every run, so that a failure belongs to the change that shows it, and no
# deadline, since the tests share few cores. The fuzz targets are there for the long search.
settings.register_profile("hsmagent", database=None, deadline=None, derandomize=True)
settings.load_profile("hsmagent")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case with bytes by their number: pytest spells them out, and fresh keys differ."""
    return f"{argname}:{len(val)}" if isinstance(val, bytes | bytearray) else None


@pytest.fixture
def private() -> Iterator[PrivateBus]:
    """Run a bus of the test's own."""
    with private_bus() as bus:
        bus.start()
        yield bus
