"""The quick commands stay quick: what they import is held, since time is not repeatable."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.cli import commands
from hsmagent.control.client import NONE_PRESENT

ROOT = Path(__file__).parents[2]

# Runs `hsmagent status` against a daemon that answers, without site packages in the way.
PROGRAM = """
import _socket, os, sys, threading
sys.path.insert(0, {root!r})
before = set(sys.modules)
listening = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
listening.bind({path!r} + "/control.sock")
listening.listen(1)
import json
answer = json.dumps({{"ok": {{"tokens": [], "modules": []}}}}).encode()
def serve():
    descriptor, _ = listening._accept()
    os.read(descriptor, 1000)
    os.write(descriptor, len(answer).to_bytes(4, "big") + answer)
threading.Thread(target=serve).start()
from hsmagent.cli import main as cli
calls = 0
def note(frame, event, argument):
    global calls
    calls += event == "call" and "/hsmagent/" in frame.f_code.co_filename
sys.setprofile(note)
status = cli.run(["status", "--runtime-dir", {path!r}])
sys.setprofile(None)
print(json.dumps([status, sorted(set(sys.modules) - before), calls]), file=sys.stderr)
"""

# Functions of ours that it goes through, the bodies of modules and classes among them.
MOST_CALLS = 66

# json and what json itself needs; threading is the test's own.
ALLOWED = {
    "json",
    "re",
    "enum",
    "functools",
    "collections",
    "operator",
    "keyword",
    "reprlib",
    "types",
    "copyreg",
    "itertools",
    "threading",
    "hsmagent",
}


def test_status_imports_next_to_nothing(tmp_path: Path) -> None:
    program = PROGRAM.format(root=str(ROOT), path=str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    status, modules, calls = json.loads(result.stderr)
    assert (status, result.stdout) == (0, f"{NONE_PRESENT}\n")
    top = {name.partition(".")[0] for name in modules}
    assert {name for name in top if not name.startswith("_")} <= ALLOWED
    ours = {name for name in modules if name.startswith("hsmagent")}
    names = (
        *("cli", "cli.arguments", "cli.command", "cli.commands", "cli.main", "cli.management"),
        *("cli.output", "cli.show"),
        *("control", "control.client", "errors", "folders", "frame"),
    )
    assert ours == {"hsmagent", *(f"hsmagent.{name}" for name in names)}
    assert calls < MOST_CALLS


def test_status_on_a_terminal_imports_one_module_more(tmp_path: Path) -> None:
    program = PROGRAM.format(root=str(ROOT), path=str(tmp_path))
    ours, theirs = pty.openpty()
    try:
        told = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=True,
        ).stderr
        assert os.read(ours, 1000) == f"{NONE_PRESENT}\r\n".encode()
    finally:
        os.close(ours)
        os.close(theirs)
    _, modules, calls = json.loads(told)
    top = {name.partition(".")[0] for name in modules}
    assert {name for name in top if not name.startswith("_")} <= ALLOWED
    assert "hsmagent.cli.glance" in modules
    assert "hsmagent.model" not in modules
    assert calls < MOST_CALLS


HELP = """
import contextlib, io, sys
sys.path.insert(0, {root!r})
before = set(sys.modules)
from hsmagent.cli import main as cli
with contextlib.redirect_stdout(io.StringIO()) as shown:
    status = cli.run([*{words!r}, "--help"])
assert status == 0 and shown.getvalue().startswith("usage: hsmagent"), shown.getvalue()
print(*sorted(name for name in set(sys.modules) - before))
"""


@pytest.mark.parametrize("words", [[], *(name.split() for name in commands.BY_NAME)], ids=" ".join)
def test_help_imports_no_command(words: list[str]) -> None:
    """What a command needs to run is not needed to tell about it."""
    program = HELP.format(root=str(ROOT), words=words)
    run = [sys.executable, "-I", "-S", "-c", program]
    modules = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in modules if name.startswith("hsmagent.")}
    names = ("arguments", "command", "commands", "main", "management", "output", "usage")
    assert ours <= {
        *("hsmagent.cli", *(f"hsmagent.cli.{name}" for name in names)),
        *("hsmagent.control", "hsmagent.control.client", "hsmagent.errors", "hsmagent.folders"),
        "hsmagent.frame",
    }
    assert not {"argparse", "asyncio", "subprocess", "importlib.metadata"} & set(modules)
