"""One TPM and one database per module: making them takes a second."""

from collections.abc import Iterator

import pytest

from tests.parts.token import nss, swtpm
from tests.parts.token.provider import Provider


@pytest.fixture(scope="module")
def tpm() -> Iterator[Provider]:
    with swtpm.tpm() as provider:
        yield provider


@pytest.fixture(scope="module")
def database() -> Iterator[Provider]:
    with nss.database() as provider:
        yield provider
