"""Killed or torn out in the middle of each step: nobody stays logged in, and no try is wasted."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hsmagent.schsm.apdu import INS, Command
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.card.domain import Domain
from tests.parts.token.managed import Managed
from tests.parts.until import until

STEPS = {
    INS.GENERATE_KEY_PAIR: (("key", "new", "--label", "x"), (DEFAULT_PIN,)),
    INS.WRAP_KEY: (("key", "backup", "ssh", "."), (DEFAULT_PIN,)),
    INS.DELETE_FILE: (("key", "delete", "old", "--yes"), (DEFAULT_PIN,)),
    INS.SIGN: (("key", "test", "ssh"), (DEFAULT_PIN,)),
    INS.CHANGE_REFERENCE_DATA: (("token", "pin"), (DEFAULT_PIN, "271828")),
    INS.RESET_RETRY_COUNTER: (("token", "unblock"), (DEFAULT_SO_PIN, "271828")),
    INS.INITIALIZE: (
        ("token", "init", "--yes", "--backup-shares", "1"),
        (DEFAULT_SO_PIN, "fedcba9876543210", "271828"),
    ),
}


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
        if command.ins == self._ins and (command.data or command.ins != INS.INITIALIZE):
            self.event.set()
            return 1.5
        return self._before(command)

    def note(self, command: Command, sw: int) -> None:
        self._knobs.note(command, sw)


@pytest.mark.parametrize("ins", STEPS, ids=lambda ins: ins.name)
def test_killed_in_the_middle(reader: Reader, card: Managed, ins: INS) -> None:
    words, secrets = STEPS[ins]
    reader.card.domain = Domain.of(0)
    reached = Reached(reader, ins)
    command = [sys.executable, "-m", "hsmagent", *words, "--stdin"]
    with subprocess.Popen(
        command,
        env=card.environment,
        cwd=card.folder,
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{secret}\n" for secret in secrets).encode())
        process.stdin.close()
        assert reached.event.wait(60)
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not reader.card.logged_in)
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    assert (user.wrong, so.wrong) == (0, 0)


@pytest.mark.parametrize("ins", STEPS, ids=lambda ins: ins.name)
def test_torn_out_in_the_middle(reader: Reader, card: Managed, ins: INS) -> None:
    words, secrets = STEPS[ins]
    reader.card.domain = Domain.of(0)
    skipped = 1 + (ins == INS.INITIALIZE)  # it is asked for its memory first, by the same command
    reader.card.knobs.unplug_at = {ins: skipped}
    said = card.fails(*words, secrets=secrets)
    assert said.splitlines()[-1].startswith("hsmagent: "), said
    assert "status word" not in said
    assert list(Path(card.folder).glob("*.wrapped")) == []
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    assert (user.wrong, so.wrong) == (0, 0)


def test_two_at_once_take_turns(reader: Reader, card: Managed) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "hsmagent", "key", "new", "--label", "a", "--stdin"],
        env=card.environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    second = card("key", "new", "--label", "b", secrets=(DEFAULT_PIN,))
    _, said = first.communicate(f"{DEFAULT_PIN}\n".encode(), timeout=120)
    assert (first.returncode, second.status) == (0, 0), said.decode() + second.err
    assert len(reader.card.keys) == 5
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


RAW = """
from hsmagent.worker.pcsc import Pcsc
with Pcsc() as pcsc, pcsc.connect(pcsc.reader_names()[0]) as card, card.transaction():
    print(card.transmit(bytearray.fromhex("00200081")).hex())
"""


@pytest.mark.parametrize(
    "ins", [INS.GENERATE_KEY_PAIR, INS.WRAP_KEY, INS.SIGN], ids=lambda i: i.name
)
def test_nobody_else_uses_our_login(reader: Reader, card: Managed, ins: INS) -> None:
    """A program that speaks to the card itself waits, and then finds nobody logged in."""
    words, secrets = STEPS[ins]
    reader.card.domain = Domain.of(0)
    reached = Reached(reader, ins)
    with subprocess.Popen(
        [sys.executable, "-m", "hsmagent", *words, "--stdin"],
        env=card.environment,
        cwd=card.folder,
        stdin=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("".join(f"{secret}\n" for secret in secrets).encode())
        process.stdin.close()
        assert reached.event.wait(60)
        assert reader.card.logged_in
        raw = [sys.executable, "-c", RAW]
        environment = os.environ | dict(reader.provider.environment)
        done = subprocess.run(raw, env=environment, capture_output=True, text=True, check=True)
    assert process.returncode == 0
    assert done.stdout.strip() in {"63c3", "6d00"}
