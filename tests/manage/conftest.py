"""Tokens to manage: blank and furnished cards behind OpenSC, SoftHSM without a token, a TPM."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.token.card import Card, Reader, furnished, inserted
from tests.parts.token.managed import Managed
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm


@pytest.fixture
def reader() -> Iterator[Reader]:
    with inserted(furnished()) as reader:
        yield reader


@pytest.fixture
def blank() -> Iterator[Reader]:
    with inserted(Card.blank()) as reader:
        yield reader


@pytest.fixture
def card(reader: Reader, tmp_path: Path) -> Managed:
    return Managed(reader.provider, tmp_path)


@pytest.fixture
def blank_card(blank: Reader, tmp_path: Path) -> Managed:
    return Managed(blank.provider, tmp_path)


@pytest.fixture
def soft(tmp_path: Path) -> Managed:
    """Give SoftHSM without a token."""
    folder = SoftHsm.create(tmp_path / "softhsm")
    return Managed(Provider(MODULE, PIN, dict(folder.env)), tmp_path)
