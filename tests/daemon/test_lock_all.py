"""Locking several tokens of which one hangs."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from hsmagent import frame
from tests.daemon.conftest import Start
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until


def module_config(module: Path | str, token: SoftHsm) -> str:
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    return f'[[module]]\npath = "{module}"\nenv = {{ {env} }}\n'


def workers_of(pid: int, module: Path) -> list[int]:
    """Return the daemon's children that were started for a module."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if str(module) in Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
    ]


def unlocked(agent: AgentProcess) -> set[str]:
    return {token["label"] for token in agent.json("status")["tokens"] if token["logged_in"]}


def test_a_token_that_hangs_does_not_keep_another_logged_in(start: Start, tmp_path: Path) -> None:
    config = ""
    modules = []
    for label in ("hanging", "sound"):
        token = SoftHsm.create(tmp_path / label)
        token.init_token(label)
        # A module is known by its path: each token gets one of its own.
        modules.append(Path(shutil.copy(MODULE, tmp_path / f"{label}.so")))
        config += module_config(modules[-1], token)
    agent = start(config)
    for label in ("hanging", "sound"):
        assert agent.unlock(PIN, label).returncode == 0
    assert unlocked(agent) == {"hanging", "sound"}
    [worker] = workers_of(agent.process.pid, modules[0])
    os.kill(worker, signal.SIGSTOP)
    lock = subprocess.Popen(
        [*PROGRAM, "lock"],
        env=agent.environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: unlocked(agent) == set(), 5)
        assert lock.poll() is None  # it still waits for the one that hangs
    finally:
        lock.kill()
        lock.wait()
        os.kill(worker, signal.SIGCONT)


@pytest.mark.parametrize("how", ["lock", "reload"])
def test_a_pin_that_was_given_before_the_lock_logs_in_no_more(
    how: str, start: Start, furnished: SoftHsm
) -> None:
    agent = start(module_config(MODULE, furnished))
    [worker] = workers_of(agent.process.pid, Path(MODULE))
    with socket.socket(socket.AF_UNIX) as terminal:
        terminal.settimeout(20)
        terminal.connect(str(agent.control_socket))
        terminal.sendall(frame.encode(b'{"op": "unlock", "token": ""}'))
        assert b'"ok"' in terminal.recv(65536)
        os.kill(worker, signal.SIGSTOP)  # a card that takes its time to be looked at
        try:
            terminal.sendall(frame.encode(b"\0" + PIN.encode()))
            time.sleep(0.3)
            if how == "lock":
                agent.hsmagent("lock")
            else:
                agent.signal(signal.SIGHUP)
                time.sleep(0.5)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert b"was locked while its PIN was being tried" in terminal.recv(65536)
    assert unlocked(agent) == set()
