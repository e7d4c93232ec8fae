"""How far long work is: one line of a terminal, and gone afterwards."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.desktop.terminal import Terminal
from tests.parts.mail.people import person

ERASE = "\r\x1b[K"
PROGRAM = """
import sys, time
from hsmagent.cli import output, progress
output.prepare()
progress._AFTER = progress._EVERY = 0
with progress.shown("Making \\x1b[2Jit") as tell:
    tell(0.5)
    print("hsmagent: a warning", file=sys.stderr)
    tell(None)
print("done", file=sys.stderr)
"""
TERM = {"TERM": "xterm", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    it = Terminal([sys.executable, "-c", PROGRAM], TERM)
    yield it
    it.close()


def test_a_line_gives_way_to_what_is_said(terminal: Terminal) -> None:
    shown = terminal.wait_for("done")
    cells = "━" * 10 + "─" * 10
    assert shown == (
        f"Making \ufffd[2Jit {cells}  50%{ERASE}hsmagent: a warning\n"
        f"Making \ufffd[2Jit 0 s{ERASE}done"
    )


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_pipe_gets_nothing(term: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=TERM | {"TERM": term},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "hsmagent: a warning\ndone\n")


@pytest.mark.parametrize("printed", [False, True])
def test_a_large_file_shows_how_far_it_is(tmp_path: Path, *, printed: bool) -> None:
    """But not while what comes out goes to the same terminal."""
    certificate, _ = person("rsa").write(tmp_path, "to")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(400 << 20)
    words = ["file", "encrypt", str(big), "--recipient", str(certificate)]
    out = tmp_path / "out"
    it = Terminal(
        [sys.executable, "-m", "hsmagent", *words, "-o", "-" if printed else str(out)],
        TERM | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    try:
        if printed:
            while len(it.shown()) < 100_000:
                pass
            assert "Encrypting" not in it.shown()
        else:
            shown = it.wait_for(ERASE)
            assert re.match("Encrypting ━*─* +[0-9]+%", shown)
    finally:
        it.close()
