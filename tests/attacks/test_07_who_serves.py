"""A stranger serves the socket that a client hands a PIN to."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hsmagent.control.client import Daemon
from hsmagent.daemon.listening import make_folder
from hsmagent.errors import HsmAgentError, UsageError

PIN = "24681357"
ANSWER = json.dumps(
    {
        "ok": {"token": "work", "logged_in": False, "pin_state": "ok", "pin_pad": False}
        | {"pin_min": 4, "pin_max": 16, "warning": "", "note": ""}
    }
).encode()
CLIENT = [sys.executable, "-m", "hsmagent", "unlock", "--stdin", "--runtime-dir"]


@contextmanager
def serving(path: Path) -> Iterator[list[bytes]]:
    """Listen as a stranger would; yield what comes."""
    heard: list[bytes] = []

    def serve() -> None:
        with suppress(OSError), listening.accept()[0] as sock:
            sock.settimeout(10)
            while data := sock.recv(65536):
                heard.append(data)
                sock.sendall(len(ANSWER).to_bytes(4, "big") + ANSWER)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard


def unlock(runtime: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CLIENT, str(runtime)],
        input=PIN + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_no_pin_for_a_socket_in_a_folder_that_others_may_change(tmp_path: Path) -> None:
    """Whoever may rename the runtime folder puts one with a socket of theirs in its place."""
    open_to_all = tmp_path / "s"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    runtime = open_to_all / "r"
    runtime.mkdir(mode=0o700)
    with serving(runtime / "control.sock") as heard:
        done = unlock(runtime)
    assert not any(PIN.encode() in data for data in heard), "the PIN went to a stranger"
    assert done.returncode == 1
    assert "may be changed by others" in done.stderr


def test_no_pin_for_another_users_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells the uid of who listens; here the client takes itself for another."""
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with serving(runtime / "control.sock") as heard, pytest.raises(HsmAgentError):
        Daemon(str(runtime), 5.0).call("unlock", token="work")
    assert heard == []


def test_the_daemon_makes_no_folder_where_others_may_change_it(tmp_path: Path) -> None:
    open_to_all = tmp_path / "s"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(UsageError, match="others may change"):
        make_folder(open_to_all / "r" / "hsmagent")
