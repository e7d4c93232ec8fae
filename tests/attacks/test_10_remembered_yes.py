"""A yes that is remembered for one program serves another.

The policy decides on what the socket tells of real processes: two scripts of one interpreter, and
a program that a mount namespace shows at the path of another.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsmagent.door.policy import Policy, Verdict
from hsmagent.model import Key, KeyType, Peer, Process, Purpose, PurposeKind, Request
from hsmagent.who.peer import UNKNOWN, peer_of

KEY = Key(b"spki", KeyType.EC, 256, "secp256r1", "ssh")
ASKS = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"


class Remembers:
    """The `[[key]]` entry `confirm = "remember"`, whatever the class that holds it is called."""

    match, confirm, remember, allow, hide, name = "", "remember", 300.0, None, False, ""


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        sock.listen()
        sock.settimeout(20)
        yield sock


@contextmanager
def asking(listening: socket.socket, *command: str) -> Iterator[Peer]:
    with subprocess.Popen(command, env=os.environ | {"SSH_AUTH_SOCK": "s"}) as child:
        sock, _ = listening.accept()
        with sock:
            yield peer_of(sock)()
        child.kill()


def is_asked(policy: Policy, peer: Peer) -> bool:
    """Whether a person is asked; then the answer is yes."""
    request = Request(KEY, Purpose(PurposeKind.SSH, "log in as alice"), peer)
    asked = policy.decide(request).verdict is Verdict.CONFIRM
    policy.confirmed(request)
    return asked


@pytest.fixture
def policy() -> Policy:
    return Policy([Remembers()], lambda _key, _entry: True, lambda: 0.0)  # type: ignore[list-item]


def test_a_yes_for_one_script_is_none_for_the_next(
    policy: Policy, listening: socket.socket, tmp_path: Path
) -> None:
    for name in ("good.py", "evil.py"):
        script = tmp_path / name
        script.write_text(ASKS)
        with asking(listening, sys.executable, str(script), "s") as peer:
            assert peer.process.program == name
            assert is_asked(policy, peer)
            assert not is_asked(policy, peer), "the same process"


def test_nor_within_one_sandbox(policy: Policy, listening: socket.socket, tmp_path: Path) -> None:
    """In a container, and in a service of systemd, all scripts have one namespace and one group."""
    good, evil = tmp_path / "good.py", tmp_path / "evil.py"
    for script in (good, evil):
        script.write_text(ASKS)
    both = f"{sys.executable} {good} s & exec {sys.executable} {evil} s"
    with asking(listening, "unshare", "-rm", "sh", "-c", both) as first:
        other, _ = listening.accept()
        with other:
            second = peer_of(other)()
        assert first.process.program.partition("(")[2] == second.process.program.partition("(")[2]
        assert is_asked(policy, first)
        assert is_asked(policy, second)


def test_a_yes_for_an_unknown_program_is_none_for_the_next(policy: Policy) -> None:
    unknown = [Peer(os.getuid(), Process(pid, UNKNOWN)) for pid in (1001, 1002)]
    assert [is_asked(policy, peer) for peer in unknown] == [True, True]


def test_another_file_at_the_same_path_is_another_program(
    policy: Policy, listening: socket.socket, tmp_path: Path
) -> None:
    """`unshare` needs no rights: within it, /usr/bin/ssh-add is whatever one wants."""
    with asking(listening, "/usr/bin/ssh-add", "-l") as peer:
        assert is_asked(policy, peer)
    with asking(listening, "/usr/bin/ssh-add", "-l") as peer:
        assert not is_asked(policy, peer), "a program of its own is remembered"
    false = tmp_path / "false"
    shutil.copy("/usr/bin/ssh-add", false)
    inside = f"mount --bind {false} /usr/bin/ssh-add && exec /usr/bin/ssh-add -l"
    with asking(listening, "unshare", "-rm", "sh", "-c", inside) as peer:
        assert peer.process.exe == "/usr/bin/ssh-add"
        assert is_asked(policy, peer)


def test_a_sandbox_is_shown_as_one(listening: socket.socket) -> None:
    with asking(listening, "unshare", "-rm", "/usr/bin/ssh-add", "-l") as peer:
        assert peer.process.program.startswith("ssh-add (sandboxed: ")
