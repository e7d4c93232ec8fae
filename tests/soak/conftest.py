"""The long tests: `make soak`. They are run only when they are named."""

from pathlib import Path

import pytest

from tests.parts.token.faulty import build


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out of a run of everything."""
    del collection_path
    named = any("soak" in str(argument) for argument in config.args)
    return None if named else True


@pytest.fixture(scope="session")
def faulty_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("faulty"))
