"""Cards: one for all tests of a module that leave it as it was, or one of the test's own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hsmagent.token.tokens import Tokens
from tests.parts.token.card import Reader, furnished, inserted
from tests.parts.token.loaded import loaded


@pytest.fixture(scope="module")
def kept() -> Iterator[Reader]:
    """Give a reader whose card is only looked at and signed with."""
    with inserted(furnished()) as reader:
        yield reader


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Give a reader whose card may be locked, wiped or torn out."""
    with inserted(furnished()) as reader:
        yield reader


@pytest.fixture
async def tokens(reader: Reader, tmp_path: Path) -> AsyncIterator[Tokens]:
    """Give the module in a worker, over that card."""
    async with loaded(reader.provider, tmp_path) as tokens:
        yield tokens
