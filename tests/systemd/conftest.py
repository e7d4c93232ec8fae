import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install an `hsmagent` that runs this checkout with this Python."""
    program = tmp_path_factory.mktemp("bin") / "hsmagent"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m hsmagent "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def short() -> Iterator[Path]:
    """Make a folder whose path is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="sa"))
    yield folder
    shutil.rmtree(folder)
