import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.daemon.systemd import Notifier, listen_sockets

# Takes the sockets as a service would, and says which names it got and what it inherited.
PROGRAM = """
import os, sys
from hsmagent.daemon.systemd import listen_sockets
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"] or str(os.getpid())
sockets = listen_sockets()
print(sorted(sockets), [s.getsockname() for s in sockets.values()],
      [s.get_inheritable() for s in sockets.values()], "LISTEN_FDS" in os.environ)
"""


def activate(pid: str, *paths: Path) -> str:
    sockets = []
    for path in paths:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        sockets.append(listening)

    def hand_over() -> None:
        for number, listening in enumerate(sockets, 3):
            os.dup2(listening.fileno(), number)

    descriptors = range(3, 3 + len(sockets))
    environment = {
        **os.environ,
        "LISTEN_PID": pid,
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": "ssh:control",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        preexec_fn=hand_over,
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
    )
    for listening in sockets:
        listening.close()
    return result.stdout


def test_sockets_come_by_name_and_are_not_inherited(tmp_path: Path) -> None:
    out = activate("", tmp_path / "a", tmp_path / "b")
    assert out.startswith("['control', 'ssh']")
    assert str(tmp_path / "a") in out
    assert "[False, False] False" in out


def test_sockets_for_another_process_are_not_ours(tmp_path: Path) -> None:
    assert activate("1", tmp_path / "a").startswith("[] []")


def test_without_activation_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert listen_sockets() == {}


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"hsmagent-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind("\0" + name if abstract else name)
    monkeypatch.setenv("NOTIFY_SOCKET", ("@" if abstract else "") + name)
    Notifier().tell("READY=1", "STATUS=fine")
    assert manager.recv(100) == b"READY=1\nSTATUS=fine"
    assert "NOTIFY_SOCKET" not in os.environ
    manager.close()


def test_a_manager_that_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifier().tell("READY=1")
