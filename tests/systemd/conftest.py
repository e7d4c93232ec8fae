import sys
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
