"""ssh with a key on the card, through the real daemon. The card counts every PIN it is given."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsmagent import frame
from hsmagent.control.client import PIN_PLAIN, Daemon
from hsmagent.errors import HsmAgentError
from hsmagent.schsm.apdu import INS, SW
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.agent.ssh_login import HELLO, logging_in, serving, ssh, started
from tests.parts.agent.sshd import Sshd
from tests.parts.desktop.terminal import Terminal
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.pkcs11_tool import ToolFailed, pkcs11_tool, reset_card
from tests.parts.until import until

WRONG = "000000"
KEYS = ("ssh", "mail")  # P-256 and RSA-2048


@pytest.fixture
def agent(reader: Reader, tmp_path: Path) -> Iterator[AgentProcess]:
    """Start a daemon that knows the card, locked."""
    with started(reader.provider, tmp_path) as agent:
        yield agent


@pytest.fixture
def sshd(agent: AgentProcess, tmp_path: Path) -> Iterator[Sshd]:
    """Start an sshd that trusts the card's P-256 key and no other."""
    with serving(agent, tmp_path, "ssh") as server:
        yield server


def token(agent: AgentProcess) -> dict[str, Any]:
    [token] = agent.json("status")["tokens"]
    assert isinstance(token, dict)
    return token


def presented(reader: Reader) -> int:
    """How often somebody gave the card a PIN."""
    assert reader.card.user is not None
    return reader.card.user.presented


def asks_again(agent: AgentProcess, sshd: Sshd, reader: Reader) -> None:
    """See that the next login waits for a person, gives the card no PIN by itself, and works."""
    before = presented(reader)
    login = logging_in(agent, sshd)
    with pytest.raises(subprocess.TimeoutExpired):
        login.wait(1.5)
    assert presented(reader) == before
    until(lambda: agent.unlock(DEFAULT_PIN).returncode == 0)
    assert login.communicate(timeout=30)[0] == HELLO, agent.logged()
    assert presented(reader) == before + 1


def test_lists_without_a_pin(agent: AgentProcess, reader: Reader) -> None:
    listed = agent.run(["ssh-add", "-l"]).stdout
    assert [" ssh (work" in line for line in listed.splitlines()].count(True) == 1
    assert [" mail (work" in line for line in listed.splitlines()].count(True) == 1
    assert "old" not in listed  # ssh has no name for brainpool curves
    assert "authority" not in listed
    assert "brainpoolP256r1" in agent.hsmagent("keys").stdout
    assert presented(reader) == 0


@pytest.mark.parametrize("key", KEYS)
def test_logs_in(agent: AgentProcess, reader: Reader, tmp_path: Path, key: str) -> None:
    with serving(agent, tmp_path, key) as sshd:
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        for _ in range(3):
            assert ssh(agent, sshd).stdout == HELLO
    assert presented(reader) == 1


def test_logs_in_at_the_speed_of_a_real_card(
    agent: AgentProcess, reader: Reader, sshd: Sshd
) -> None:
    reader.card.knobs.genuine_speed()
    agent.unlock(DEFAULT_PIN)
    start = time.monotonic()
    assert ssh(agent, sshd).stdout == HELLO
    # One signature and its two commands, and ssh's own second on a busy machine.
    assert time.monotonic() - start < 10


def test_wrong_pins_down_to_blocked_and_not_one_try_more(
    agent: AgentProcess, reader: Reader, sshd: Sshd
) -> None:
    for typed, state in ((1, "count-low"), (2, "final-try")):
        assert agent.unlock(WRONG).returncode == 1
        assert token(agent)["pin_state"] == state
        assert presented(reader) == typed
    warned = agent.unlock(WRONG)
    assert "One try is left" in warned.stderr
    assert presented(reader) == 2
    assert agent.unlock(WRONG, "--last-try").returncode == 1
    assert token(agent)["pin_state"] == "locked"
    assert presented(reader) == 3
    refused = agent.unlock(DEFAULT_PIN)
    assert refused.returncode == 1
    assert "PUK" in refused.stderr
    assert ssh(agent, sshd).returncode != 0
    assert presented(reader) == 3


def test_the_last_try_wants_a_whole_word(agent: AgentProcess, reader: Reader) -> None:
    for _ in range(2):
        agent.unlock(WRONG)
    for typed, said in (("y", "nothing was tried"), ("yes", "yes\nPIN for work")):
        terminal = Terminal([*PROGRAM, "unlock"], agent.environment)
        try:
            terminal.wait_for("One try is left: another wrong PIN blocks the token.\n")
            terminal.wait_for("Type yes to go on: ")
            terminal.type(f"{typed}\n")
            terminal.wait_for(said)
            assert presented(reader) == 2
        finally:
            terminal.close()


def test_tries_used_up_while_the_terminal_asks(agent: AgentProcess, reader: Reader) -> None:
    daemon = Daemon(str(agent.runtime))
    try:
        assert daemon.call("unlock", token="")["pin_state"] == "ok"
        for _ in range(2):  # another program's
            with pytest.raises(ToolFailed):
                pkcs11_tool(reader.provider, "--list-objects", pin=WRONG)
        assert presented(reader) == 2
        with pytest.raises(HsmAgentError, match="One try is left"):
            daemon.exchange(bytearray([PIN_PLAIN]) + WRONG.encode())
    finally:
        daemon.close()
    assert presented(reader) == 2


def give_pin_and_go(agent: AgentProcess, pause: float = 0.0) -> None:
    """Be a terminal that hangs up once it has handed the PIN over."""
    with socket.socket(socket.AF_UNIX) as terminal:
        terminal.connect(str(agent.control_socket))
        terminal.sendall(frame.encode(b'{"op": "unlock"}'))
        assert b'"logged_in": false' in terminal.recv(10_000)
        terminal.sendall(frame.encode(bytes([PIN_PLAIN]) + DEFAULT_PIN.encode()))
        time.sleep(pause)


def test_a_terminal_that_goes_away_spoils_no_pin(agent: AgentProcess, reader: Reader) -> None:
    """A login that has begun goes on, with the PIN as it was typed."""
    reader.card.knobs.genuine_speed()
    for pause in (0.0, 0.01, 0.03, 0.1):
        agent.hsmagent("lock")
        give_pin_and_go(agent, pause)
        assert agent.unlock(DEFAULT_PIN).returncode == 0
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


def test_a_terminal_that_goes_away_leaves_nobody_waiting(
    agent: AgentProcess, reader: Reader, sshd: Sshd
) -> None:
    reader.card.knobs.genuine_speed()
    login = logging_in(agent, sshd)
    until(lambda: "run `hsmagent unlock " in agent.logged())
    give_pin_and_go(agent, 0.05)  # the login has begun, and takes longer than that
    assert login.communicate(timeout=30)[0] == HELLO, agent.logged()


def test_unblocked_by_another_program(agent: AgentProcess, reader: Reader, sshd: Sshd) -> None:
    for _ in range(3):
        agent.unlock(WRONG, "--last-try")
    unblock = ["--login", "--login-type", "so", "--so-pin", DEFAULT_SO_PIN, "--init-pin"]
    pkcs11_tool(reader.provider, *unblock, "--new-pin", "123456")
    assert agent.unlock("123456").returncode == 0
    assert ssh(agent, sshd).stdout == HELLO


def test_a_pin_of_a_length_that_the_card_cannot_take(agent: AgentProcess, reader: Reader) -> None:
    assert agent.unlock("123").returncode == 1
    assert presented(reader) == 0


def test_unplugged_while_logged_in(agent: AgentProcess, reader: Reader, sshd: Sshd) -> None:
    agent.unlock(DEFAULT_PIN)
    reader.unplug()
    until(lambda: not token(agent)["present"])
    assert not token(agent)["logged_in"]
    assert ssh(agent, sshd).returncode != 0
    assert "ssh (work" not in agent.run(["ssh-add", "-l"]).stdout
    reader.plug()
    until(lambda: "ssh (work" in agent.run(["ssh-add", "-l"]).stdout)
    asks_again(agent, sshd, reader)


def test_unplugged_in_the_middle_of_a_signature(
    agent: AgentProcess, reader: Reader, sshd: Sshd
) -> None:
    agent.unlock(DEFAULT_PIN)
    reader.card.knobs.unplug_at[INS.SIGN] = 1
    login = logging_in(agent, sshd)
    until(lambda: not token(agent)["logged_in"])
    until(lambda: not token(agent)["present"])
    reader.plug()
    until(lambda: token(agent)["present"])
    assert presented(reader) == 1
    login.kill()
    login.communicate()
    asks_again(agent, sshd, reader)


def test_another_program_resets_the_card(
    agent: AgentProcess, reader: Reader, sshd: Sshd, tmp_path: Path
) -> None:
    agent.unlock(DEFAULT_PIN)
    assert ssh(agent, sshd).stdout == HELLO
    reset_card(reader.provider, tmp_path)
    asks_again(agent, sshd, reader)
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


def test_another_program_uses_the_card(agent: AgentProcess, reader: Reader, sshd: Sshd) -> None:
    agent.unlock(DEFAULT_PIN)
    pkcs11_tool(reader.provider, "--list-objects", pin=DEFAULT_PIN)
    login = logging_in(agent, sshd)
    # OpenSC logs in again by itself, unless we noticed first that it was logged out.
    until(lambda: login.poll() is not None or not token(agent)["logged_in"])
    agent.unlock(DEFAULT_PIN)
    assert login.communicate(timeout=30)[0] == HELLO, agent.logged()
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


def test_pcscd_is_restarted(agent: AgentProcess, reader: Reader, sshd: Sshd) -> None:
    agent.unlock(DEFAULT_PIN)
    reader.restart_pcscd()
    until(lambda: not token(agent)["logged_in"])
    until(lambda: "ssh (work" in agent.run(["ssh-add", "-l"]).stdout)
    asks_again(agent, sshd, reader)


def test_a_card_that_fails_for_a_while(agent: AgentProcess, reader: Reader, sshd: Sshd) -> None:
    agent.unlock(DEFAULT_PIN)
    reader.card.knobs.override[INS.SIGN] = (SW.INTERNAL, 99)
    login = logging_in(agent, sshd)
    until(lambda: not token(agent)["logged_in"])
    del reader.card.knobs.override[INS.SIGN]
    assert presented(reader) == 1
    assert agent.unlock(DEFAULT_PIN).returncode == 0
    assert login.communicate(timeout=30)[0] == HELLO, agent.logged()
    assert presented(reader) == 2


def test_no_pin_in_the_log(agent: AgentProcess) -> None:
    agent.unlock("314159")
    agent.unlock(DEFAULT_PIN)
    assert "314159" not in agent.logged()
    assert DEFAULT_PIN not in agent.logged()
    assert DEFAULT_PIN not in json.dumps(agent.json("status"))
