"""The same tests on dbus-fast, which serves from Python 3.15 on."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hsmagent.bus import codec

ROOT = Path(__file__).parent.parent.parent
TESTS = ("tests/bus", "tests/prompt/test_system.py")


@pytest.mark.skipif(codec.LIBRARY == "dbus_fast", reason="these are the tests on dbus-fast")
def test_the_bus_tests_pass_on_dbus_fast() -> None:
    check = "from hsmagent.bus import codec; assert codec.LIBRARY == 'dbus_fast'"
    environment = os.environ | {"HSMAGENT_DBUS_LIBRARY": "dbus-fast"}
    subprocess.run([sys.executable, "-c", check], env=environment, cwd=ROOT, check=True)
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Its folders are its own, or it would clear those of the tests that run now; and short, for the
    # sockets below them.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*pytest_, f"--basetemp={folder}/p", *TESTS],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout
