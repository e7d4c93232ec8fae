"""The two agents, with the same SoftHSM tokens: OpenSSH's ssh-agent, and ours."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import load
from tests.parts.agent.daemon import ANY_DATA, AgentProcess
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until


@dataclass(frozen=True, slots=True)
class Rival:
    """An agent that runs: its socket and its process."""

    path: Path
    pid: int


@contextlib.contextmanager
def openssh(folder: Path, token: SoftHsm) -> Iterator[Rival]:
    """Start OpenSSH's ssh-agent with the tokens loaded through its helper."""
    path, askpass = folder / "openssh.sock", folder / "askpass"
    environment = {**os.environ, **dict(token.env), "SSH_AUTH_SOCK": str(path)}
    askpass.write_text(f"#!/bin/sh\necho {PIN}\n")
    askpass.chmod(0o700)
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: load.answers(path))
        asked = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(
            ["ssh-add", "-s", os.path.realpath(MODULE)],
            env={**environment, **asked},
            check=True,
            capture_output=True,
        )
        yield Rival(path, agent.pid)
    finally:
        agent.terminate()
        agent.wait()


def config(token: SoftHsm, workers: int = 1) -> str:
    """Return a configuration with this SoftHSM."""
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    module = f'[[module]]\npath = "{MODULE}"\nworkers = {workers}\nenv = {{ {env} }}\n'
    return module + ANY_DATA


@contextlib.contextmanager
def ours(folder: Path, token: SoftHsm, labels: Sequence[str], workers: int = 1) -> Iterator[Rival]:
    """Start our daemon with these tokens unlocked."""
    agent = AgentProcess(folder, config(token, workers))
    agent.start()
    try:
        for label in labels:
            done = agent.unlock(PIN, label)
            if done.returncode:
                raise RuntimeError(done.stderr)
        yield Rival(agent.ssh_socket, agent.process.pid)
    finally:
        agent.stop()


def hsm(folder: Path, label: str = "bench") -> SoftHsm:
    """Make a SoftHSM with one empty token."""
    made = SoftHsm.create(folder)
    made.init_token(label)
    return made
