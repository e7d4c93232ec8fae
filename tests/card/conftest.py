"""Cards: one for all tests of a module that leave it as it was, or one of the test's own."""

from collections.abc import Iterator

import pytest

from tests.parts.token.card import Reader, furnished, inserted


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
