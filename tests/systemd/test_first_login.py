"""The first ssh of a session, which starts the agent by its socket, and a slow card."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.agent.ssh_login import HELLO, logging_in, ssh
from tests.parts.agent.sshd import Sshd
from tests.parts.token.faulty import Action, Faulty, build
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

SECONDS = 8.0  # as OpenSC takes for many a card; longer than any wait before there was one for this


@pytest.fixture
def slow(tmp_path: Path) -> tuple[Faulty, SoftHsm]:
    """Make a token with one key, behind a module that can be made to take its time."""
    hsm = SoftHsm.create(tmp_path / "hsm")
    hsm.init_token("own")
    hsm.generate("own", "EC:prime256v1", "01", "p256")
    return Faulty.create(build(tmp_path), tmp_path / "faults", MODULE, hsm.env), hsm


@pytest.fixture
def agent(short: Path, slow: tuple[Faulty, SoftHsm]) -> AgentProcess:
    faulty, _ = slow
    return AgentProcess(short, Provider(faulty.module, PIN, dict(faulty.env)).config())


@contextmanager
def activated(agent: AgentProcess) -> Iterator[None]:
    """Let systemd listen on the agent's sockets, and start it for the first client."""
    agent.runtime.mkdir(mode=0o700, exist_ok=True)
    sockets = agent.ssh_socket, agent.control_socket, agent.mail_socket
    for path in sockets:
        path.unlink(missing_ok=True)
    with agent.log.open("ab") as log:
        listening = subprocess.Popen(
            [
                *("systemd-socket-activate", "--fdname=ssh:control:mail"),
                *(f"--listen={path}" for path in sockets),
                *(f"--setenv={name}={value}" for name, value in agent.environment.items()),
                *(*PROGRAM, "daemon"),
            ],
            env=agent.environment,
            cwd=Path(__file__).parents[2],
            stderr=log,
        )
    try:
        until(lambda: all(path.exists() for path in sockets))
        yield
    finally:
        listening.terminate()
        listening.wait(20)


@contextmanager
def server(folder: Path, line: str) -> Iterator[Sshd]:
    sshd = Sshd(folder / "sshd", [line])
    sshd.start()
    yield sshd
    sshd.stop()


def test_it_waits_until_the_card_is_read_and_the_next_time_for_nothing(
    agent: AgentProcess, slow: tuple[Faulty, SoftHsm], tmp_path: Path
) -> None:
    faulty, hsm = slow
    with server(tmp_path, hsm.run("ssh-keygen", "-D", MODULE).strip()) as sshd:
        # Nothing is known of the token: the list waits, and the person types the PIN meanwhile.
        faulty.strike("C_GetSlotList", Action.WAIT)
        with activated(agent):
            read = threading.Timer(SECONDS, faulty.heal)
            read.start()
            login = logging_in(agent, sshd)
            until(lambda: faulty.calls("C_GetSlotList"))
            assert agent.unlock(PIN).returncode == 0
            assert login.communicate(timeout=60)[0] == HELLO
            read.join()
        # Its keys are remembered: they are listed while it is being read, and the login waits.
        faulty.strike("C_GetSlotList", Action.WAIT)
        looks = faulty.calls("C_FindObjectsInit")
        with activated(agent):
            assert "p256" in agent.run(["ssh-add", "-l"]).stdout
            assert agent.json("status")["tokens"] == []
            login = logging_in(agent, sshd)
            time.sleep(SECONDS)
            assert faulty.calls("C_FindObjectsInit") == looks
            assert login.poll() is None
            faulty.heal()
            assert agent.unlock(PIN).returncode == 0
            assert login.communicate(timeout=60)[0] == HELLO


def test_what_is_remembered_and_is_not_there_is_no_key(
    agent: AgentProcess, slow: tuple[Faulty, SoftHsm], tmp_path: Path
) -> None:
    faulty, hsm = slow
    with server(tmp_path, hsm.run("ssh-keygen", "-D", MODULE).strip()) as sshd:
        with activated(agent):
            assert agent.unlock(PIN).returncode == 0
        faulty.strike("C_GetSlotList", Action.WAIT)
        faulty.unplug()
        with activated(agent):
            assert "p256" in agent.run(["ssh-add", "-l"]).stdout
            login = logging_in(agent, sshd)
            until(lambda: "Accepted key" in sshd.log.read_text())  # and so it wants a signature
            faulty.heal()
            assert login.communicate(timeout=60)[0] == ""
            until(lambda: agent.run(["ssh-add", "-l"]).returncode == 1)
            assert agent.json("status")["tokens"] == []
            assert ssh(agent, sshd).returncode
