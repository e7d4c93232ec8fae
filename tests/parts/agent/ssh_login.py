"""A daemon with one token, an sshd that trusts one of its keys, and logins between them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.sshd import Sshd
from tests.parts.token.provider import Provider

COMMAND = ("127.0.0.1", "echo", "hello")
HELLO = "hello\n"


@contextmanager
def started(provider: Provider, folder: Path, extra: str = "") -> Iterator[AgentProcess]:
    """Start a daemon that knows the provider's token, locked; `extra` is more configuration."""
    agent = AgentProcess(folder / "home", provider.config() + extra)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


@contextmanager
def serving(agent: AgentProcess, folder: Path, key: str) -> Iterator[Sshd]:
    """Start an sshd that trusts this key of the agent's and no other."""
    server = Sshd(folder / "sshd", [agent.hsmagent("pubkey", key).stdout.strip()])
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ssh(agent: AgentProcess, sshd: Sshd) -> subprocess.CompletedProcess[str]:
    """Log in and say hello."""
    return agent.run(["ssh", *sshd.ssh_options, *COMMAND])


def logging_in(agent: AgentProcess, sshd: Sshd) -> subprocess.Popen[str]:
    """Start a login that waits for a PIN."""
    return subprocess.Popen(
        ["ssh", *sshd.ssh_options, *COMMAND],
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
