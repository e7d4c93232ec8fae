import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsmagent.model import Peer, Process
from hsmagent.who import peer
from hsmagent.who.peer import UNKNOWN, peer_of, peer_of_process

CONNECT = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.recv(1)
"""


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        before = Path.cwd()
        os.chdir(tmp_path)  # tmp_path may be longer than a socket's name
        sock.bind("s")
        os.chdir(before)
        sock.listen()
        sock.settimeout(20)
        yield sock


@contextmanager
def connected(listening: socket.socket, cwd: Path, *command: str) -> Iterator[socket.socket]:
    """Run a program that connects to the socket "s" of its folder; yield our end."""
    environment = os.environ | {"SSH_AUTH_SOCK": "s"}
    child = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        sock, _ = listening.accept()
        with sock:
            yield sock
    finally:
        child.wait(20)


@pytest.fixture(params=[77, 9999], ids=["peerpidfd", "linux-6.1"])
def _pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_SO_PEERPIDFD", request.param)


@pytest.mark.usefixtures("_pidfd")
def test_ssh_add_under_a_shell(listening: socket.socket, tmp_path: Path) -> None:
    with connected(listening, tmp_path, "bash", "-c", "ssh-add -l; true") as sock:
        who = peer_of(sock)()
    assert who.uid == os.getuid()
    assert who.process.program == "ssh-add"
    assert who.process.exe.endswith("/ssh-add")
    assert who.process.arguments == ("ssh-add", "-l")
    assert who.parents[0].program == "bash"
    assert who.parents[0].arguments[1:] == ("-c", "ssh-add -l; true")
    assert who.parents[1].pid == os.getpid()
    assert who.chain.startswith("ssh-add ← bash ← ")


def test_the_chain_ends_at_the_session_leader(listening: socket.socket, tmp_path: Path) -> None:
    # setsid forks when it leads a group already; here it becomes the leader itself.
    command = ("setsid", "bash", "-c", "bash -c 'ssh-add -l; true'; true")
    with connected(listening, tmp_path, *command) as sock:
        who = peer_of(sock)()
    assert [process.program for process in who.parents] == ["bash", "bash"]


def test_a_long_ancestry_is_cut(listening: socket.socket, tmp_path: Path) -> None:
    script = 'if [ "$1" = 0 ]; then ssh-add -l; else bash -c "$0" "$0" $(($1 - 1)); fi; true'
    with connected(listening, tmp_path, "bash", "-c", script, script, "12") as sock:
        who = peer_of(sock)()
    assert len(who.parents) == peer.MAX_PARENTS


def test_a_script_is_known_by_its_name(listening: socket.socket, tmp_path: Path) -> None:
    script = tmp_path / "hsmagent-sendmail"
    script.write_text(CONNECT)
    command = (sys.executable, "-I", str(script), "s", "-i", "--", "you@example.org")
    with connected(listening, tmp_path, *command) as sock:
        who = peer_of(sock)()
    assert who.process.program == "hsmagent-sendmail"
    assert Path(who.process.exe).name.startswith("python")


def test_hostile_names_and_arguments_are_made_printable(
    listening: socket.socket, tmp_path: Path
) -> None:
    program = tmp_path / "\u202egit\n\x1b[31m"
    program.symlink_to(sys.executable)
    copy = tmp_path / "evil\u202e\x07"
    copy.write_bytes(Path("/usr/bin/ssh-add").read_bytes())
    copy.chmod(0o755)
    many = ["x" * 5000, *["\x1b[2J"] * 100]
    with connected(listening, tmp_path, str(copy), "-l", *many) as sock:
        who = peer_of(sock)()
    assert who.process.program == "evil\ufffd\ufffd"
    assert len(who.process.arguments) <= peer.MAX_ARGUMENTS
    assert all(a.isprintable() and len(a) <= peer.MAX_ARGUMENT for a in who.process.arguments)
    with connected(listening, tmp_path, str(program), "-c", CONNECT, "s", "\x1b]0;\u202e") as sock:
        who = peer_of(sock)()
    assert who.process.arguments[-1] == "\ufffd]0;\ufffd"
    assert who.chain.isprintable()


@pytest.mark.usefixtures("_pidfd")
def test_a_peer_that_has_gone_is_unknown(listening: socket.socket, tmp_path: Path) -> None:
    script = CONNECT.replace("sock.recv(1)", "")
    with connected(listening, tmp_path, sys.executable, "-c", script, "s") as sock:
        sock.recv(1)  # it has closed its end, and soon ends
        who = peer_of(sock)
    assert who() == Peer(os.getuid(), Process(who().process.pid, UNKNOWN))


def test_names_are_read_at_the_first_call_and_kept(
    listening: socket.socket, tmp_path: Path
) -> None:
    with connected(listening, tmp_path, "ssh-add", "-l") as sock:
        who = peer_of(sock)
        first = who()
    assert first.process.program == "ssh-add"
    assert who() is first


def test_a_reused_pid_is_unknown(
    listening: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(listening, tmp_path, "ssh-add", "-l") as sock:
        who = peer_of(sock)
        monkeypatch.setattr(peer, "_stat", lambda pid: peer._Stat(pid, 1, 1, 0, 1))
        assert who().process.program == UNKNOWN


def test_pid_0_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_UCRED", FromElsewhere())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours)() == Peer(4711, Process(0, UNKNOWN))


class FromElsewhere:
    """The credentials of a peer in a pid namespace that we cannot see."""

    size = 12

    def unpack(self, _raw: bytes) -> tuple[int, int, int]:
        return 0, 4711, 4711


def test_a_process_by_its_number(listening: socket.socket, tmp_path: Path) -> None:
    with connected(listening, tmp_path, "bash", "-c", "ssh-add -l; true") as sock:
        who = peer_of(sock)()
        assert peer_of_process(who.process.pid, 4711) == Peer(4711, who.process, who.parents)
    assert peer_of_process(who.process.pid, 4711).process.program == UNKNOWN
    assert peer_of_process(0, 4711).process.program == UNKNOWN


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_who_lets_nobody_look_has_a_name_alone() -> None:
    assert peer._process(1) == Process(1, Path("/proc/1/comm").read_text().strip())


def test_it_is_cheap(listening: socket.socket, tmp_path: Path) -> None:
    """Not a benchmark: a guard against reading /proc by the dozen."""
    with connected(listening, tmp_path, "ssh-add", "-l") as sock:
        start = time.process_time()
        for _ in range(100):
            peer_of(sock)
        assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    ("name", "relays"),
    [
        *((name, True) for name in ("python3.11", "bash", "dash", "sshd-session", "socat", "node")),
        *((name, True) for name in ("p11-kit", "p11-kit-server", "p11-kit-remote")),
        ("ssh-pkcs11-helper", True),
        *((name, False) for name in ("ssh", "thunderbird", "nginx", "p11tool")),
    ],
)
def test_what_relays_is_known_by_name(name: str, *, relays: bool) -> None:
    assert bool(peer.ANYTHING.fullmatch(name)) is relays
