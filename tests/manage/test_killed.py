"""Killed or torn out in the middle of each step: nobody stays logged in, and no try is wasted."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsmagent.schsm import dkek
from hsmagent.schsm.apdu import INS, Command
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.card.domain import Domain
from tests.parts.token.managed import START, Managed
from tests.parts.until import until

PASSWORD = "correct horse"
EMAIL = ("--email", "alice@example.org")


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and which of the card's instructions it is caught at."""

    ins: INS
    words: tuple[str, ...]
    secrets: tuple[str, ...] = (DEFAULT_PIN,)


STEPS = {
    "key-new": Step(INS.GENERATE_KEY_PAIR, ("key", "new", "--label", "x")),
    "key-test": Step(INS.SIGN, ("key", "test", "ssh")),
    "key-rename": Step(INS.UPDATE_BINARY, ("key", "rename", "old", "x")),
    "key-delete": Step(INS.DELETE_FILE, ("key", "delete", "old", "--yes")),
    "key-backup": Step(INS.WRAP_KEY, ("key", "backup", "ssh", ".")),
    "key-restore": Step(INS.UNWRAP_KEY, ("key", "restore", "kept/old.wrapped")),
    "cert-request": Step(INS.SIGN, ("cert", "request", "ssh", *EMAIL)),
    "cert-self-sign": Step(INS.UPDATE_BINARY, ("cert", "self-sign", "old", *EMAIL)),
    "cert-replace": Step(INS.DELETE_FILE, ("cert", "self-sign", "ssh", *EMAIL, "--yes")),
    "data-write": Step(INS.UPDATE_BINARY, ("data", "write", "x", "/etc/hostname")),
    "data-delete": Step(INS.DELETE_FILE, ("data", "delete", "note", "--yes")),
    "share-import": Step(INS.KEY_DOMAIN, ("token", "share", "import", "share.pbe"), (PASSWORD,)),
    "token-pin": Step(INS.CHANGE_REFERENCE_DATA, ("token", "pin"), (DEFAULT_PIN, "271828")),
    "token-so-pin": Step(
        INS.CHANGE_REFERENCE_DATA, ("token", "so-pin"), (DEFAULT_SO_PIN, "fedcba9876543210")
    ),
    "token-unblock": Step(
        INS.RESET_RETRY_COUNTER, ("token", "unblock"), (DEFAULT_SO_PIN, "271828")
    ),
    "token-init": Step(
        INS.INITIALIZE,
        ("token", "init", "--yes", "--backup-shares", "1"),
        (DEFAULT_SO_PIN, "fedcba9876543210", "271828"),
    ),
}
# By the same instruction the card is asked how it is, without data.
ASKED_BEFORE = {INS.INITIALIZE, INS.KEY_DOMAIN}


@pytest.fixture
def step(reader: Reader, card: Managed, tmp_path: Path, request: pytest.FixtureRequest) -> Step:
    """Furnish the card for a step: a DKEK, one that waits for a share, a backup of a lost key."""
    step = STEPS[request.param]
    reader.card.domain = Domain.of(0)
    if step.ins == INS.UNWRAP_KEY:
        (tmp_path / "kept").mkdir()
        card.does("key", "backup", "old", "kept", secrets=(DEFAULT_PIN,))
        card.does("key", "delete", "old", "--yes", secrets=(DEFAULT_PIN,))
    if step.ins == INS.KEY_DOMAIN:
        content = dkek.encrypt_share(bytes(range(32)), PASSWORD.encode(), lambda _: None, 1000)
        (tmp_path / "share.pbe").write_bytes(content)
        reader.card.domain = Domain.of(1)
    return step


every_step = pytest.mark.parametrize("step", STEPS, indirect=True)


class Reached:
    """Tells when the card has got a command, which it then takes its time for."""

    rsa = ec = 0.0

    def __init__(self, reader: Reader, ins: int) -> None:
        self._knobs = reader.card.knobs
        self._before = self._knobs.before
        self._ins = ins
        self.event = threading.Event()
        reader.card.knobs = self  # type: ignore[assignment]

    def before(self, command: Command) -> float:
        if command.ins == self._ins and (command.data or command.ins not in ASKED_BEFORE):
            self.event.set()
            return 1.5
        return self._before(command)

    def note(self, command: Command, sw: int) -> None:
        self._knobs.note(command, sw)


@every_step
def test_killed_in_the_middle(reader: Reader, card: Managed, step: Step) -> None:
    reached = Reached(reader, step.ins)
    command = [sys.executable, "-c", START, str(card.rounds), *step.words, "--stdin"]
    with subprocess.Popen(
        command,
        env=card.environment,
        cwd=card.folder,
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{secret}\n" for secret in step.secrets).encode())
        process.stdin.close()
        assert reached.event.wait(60)
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not reader.card.logged_in)
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    assert (user.wrong, so.wrong) == (0, 0)


@every_step
def test_torn_out_in_the_middle(reader: Reader, card: Managed, step: Step) -> None:
    reader.card.knobs.unplug_at = {step.ins: 1 + (step.ins in ASKED_BEFORE)}
    said = card.fails(*step.words, secrets=step.secrets)
    assert said.splitlines()[-1].startswith("hsmagent: "), said
    assert "status word" not in said
    assert list(Path(card.folder).glob("*.wrapped")) == []
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    assert (user.wrong, so.wrong) == (0, 0)


AT_ONCE = {
    "key-new": (("key", "new", "--label", "a"), ("key", "new", "--label", "b")),
    "key-rename": (("key", "rename", "old", "a"), ("key", "rename", "mail", "b")),
    "key-backup": (("key", "backup", "ssh", "."), ("key", "backup", "mail", ".")),
    "cert-self-sign": (
        ("cert", "self-sign", "ssh", *EMAIL, "--yes"),
        ("cert", "self-sign", "old", *EMAIL),
    ),
    "data-write": (
        ("data", "write", "a", "/etc/hostname"),
        ("data", "write", "b", "/etc/hostname", "--private"),
    ),
}


@pytest.mark.parametrize("pair", AT_ONCE.values(), ids=AT_ONCE)
def test_two_at_once_take_turns(
    reader: Reader, card: Managed, pair: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    reader.card.domain = Domain.of(0)
    before = len(reader.card.keys), len(reader.card.files.content)
    first = subprocess.Popen(
        [sys.executable, "-m", "hsmagent", *pair[0], "--stdin"],
        env=card.environment,
        cwd=card.folder,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    second = card(*pair[1], secrets=(DEFAULT_PIN,))
    _, said = first.communicate(f"{DEFAULT_PIN}\n".encode(), timeout=120)
    assert (first.returncode, second.status) == (0, 0), said.decode() + second.err
    keys, files = len(reader.card.keys) - before[0], len(reader.card.files.content) - before[1]
    # Each made its own: a key, a description and a request; or data and its description.
    assert (keys, files) == {"key new": (2, 6), "data write": (0, 4)}.get(
        " ".join(pair[0][:2]), (0, 0)
    )
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


RAW = """
from hsmagent.worker.pcsc import Pcsc
with Pcsc() as pcsc, pcsc.connect(pcsc.reader_names()[0]) as card, card.transaction():
    print(card.transmit(bytearray.fromhex("00200081")).hex())
"""


@pytest.mark.parametrize("step", ["key-new", "key-backup", "key-test"], indirect=True)
def test_nobody_else_uses_our_login(reader: Reader, card: Managed, step: Step) -> None:
    """A program that speaks to the card itself waits, and then finds nobody logged in."""
    reached = Reached(reader, step.ins)
    with subprocess.Popen(
        [sys.executable, "-m", "hsmagent", *step.words, "--stdin"],
        env=card.environment,
        cwd=card.folder,
        stdin=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{secret}\n" for secret in step.secrets).encode())
        process.stdin.close()
        assert reached.event.wait(60)
        assert reader.card.logged_in
        raw = [sys.executable, "-c", RAW]
        environment = os.environ | dict(reader.provider.environment)
        done = subprocess.run(raw, env=environment, capture_output=True, text=True, check=True)
    assert process.returncode == 0
    assert done.stdout.strip() in {"63c3", "6d00"}


def test_no_pin_is_sent_more_often_than_it_was_typed(
    reader: Reader, card: Managed, tmp_path: Path
) -> None:
    """A wrong one costs one try, whatever the command; the card counts."""
    reader.card.domain = Domain.of(0)
    card.does("key", "backup", "old", ".", secrets=(DEFAULT_PIN,))
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    for name, step in STEPS.items():
        if name == "share-import":  # wants no PIN
            continue
        if name == "key-restore":
            (tmp_path / "kept").mkdir()
            (tmp_path / "old.wrapped").rename(tmp_path / "kept" / "old.wrapped")
            card.does("key", "delete", "old", "--yes", secrets=(DEFAULT_PIN,))
        by_so = step.secrets[0] == DEFAULT_SO_PIN
        user.presented = user.wrong = so.presented = so.wrong = 0
        wrong = "0123456789abcdef" if by_so else "000000"
        words = [
            "ssh" if word == "old" and name.startswith("cert") else word for word in step.words
        ]
        said = card.fails(*words, "--yes", secrets=(wrong, *step.secrets[1:][-1:]))
        assert "is wrong" in said, name
        counted = (user.presented, user.wrong, so.presented, so.wrong)
        assert counted == ((0, 0, 1, 1) if by_so else (1, 1, 0, 0)), name
        user.left, so.left = user.tries, so.tries
    assert len(reader.card.keys) == 2
