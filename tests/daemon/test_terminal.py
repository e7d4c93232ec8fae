"""Where no window can ask: the line on the terminal of whoever waits."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hsmagent.model import Destination, Peer, Process
from hsmagent.who.peer import terminal_of
from hsmagent.who.terminal import LINE, Seat, Terminals
from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.softhsm import PIN
from tests.parts.until import until
from tests.parts.values import LOGIN

# Takes the terminal as its own, as a login does, and runs the command there.
AS_A_LOGIN = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Screen:
    """A terminal, of which we see what is shown."""

    master: int
    slave: int
    seen: bytes = b""

    def run(self, agent: AgentProcess | None, command: str) -> "subprocess.Popen[bytes]":
        """Run a shell's command there."""
        return subprocess.Popen(
            [sys.executable, "-c", AS_A_LOGIN, "sh", "-c", command],
            env=agent.environment if agent is not None else None,
            stdin=self.slave,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def shown(self) -> bytes:
        with suppress(BlockingIOError):
            self.seen += os.read(self.master, 65536)
        return self.seen


@pytest.fixture
def terminal() -> Iterator[Screen]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    os.fchmod(slave, 0o620)  # mesg y
    yield Screen(master, slave)
    os.close(slave)
    os.close(master)


def sign(agent: AgentProcess, folder: Path) -> str:
    """Return a shell's command that signs."""
    public = folder / "ec.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    return f"echo x | ssh-keygen -Y sign -n file -f {public}"


def test_who_waits_is_told_once_on_their_terminal(
    agent: AgentProcess, terminal: Screen, tmp_path: Path
) -> None:
    command = sign(agent, tmp_path)
    waiting = terminal.run(agent, f"{command} & {command} & {command}; wait")
    until(lambda: LINE.strip() in terminal.shown())
    until(lambda: len(clients(waiting.pid)) == 3)
    agent.unlock(PIN)
    assert waiting.wait(60) == 0
    assert terminal.shown().count(LINE.strip()) == 1


def clients(shell: int) -> list[str]:
    """Return the programs of this shell that wait."""
    found = subprocess.run(
        ["ps", "-o", "comm=", "--sid", str(shell)], capture_output=True, text=True, check=True
    )
    return [name for name in found.stdout.split() if name == "ssh-keygen"]


def test_a_terminal_that_takes_no_messages_gets_none(
    agent: AgentProcess, terminal: Screen, tmp_path: Path
) -> None:
    os.fchmod(terminal.slave, 0o600)  # mesg n
    assert shown_to(agent, terminal, sign(agent, tmp_path)) == b""


def test_a_program_that_sees_other_files_is_told_nothing(
    agent: AgentProcess, terminal: Screen, tmp_path: Path
) -> None:
    """There, `hsmagent unlock` may be another program, or none."""
    able = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], check=False)
    if able.returncode:
        pytest.skip("this system lets nobody make a mount namespace")
    command = sign(agent, tmp_path)
    sandboxed = f"unshare --map-current-user --mount sh -c '{command}'"
    assert shown_to(agent, terminal, sandboxed) == b""


def shown_to(agent: AgentProcess, terminal: Screen, command: str) -> bytes:
    """Run the command until it is served; return what its terminal showed."""
    waiting = terminal.run(agent, command)
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    agent.unlock(PIN)
    assert waiting.wait(60) == 0
    return terminal.shown()


@pytest.mark.parametrize("forwarded", [False, True])
def test_a_forwarded_request_is_from_elsewhere(terminal: Screen, *, forwarded: bool) -> None:
    """The process that asks is then ssh, on whose terminal a session elsewhere is shown."""
    with terminal.run(None, "sleep 60") as shell:
        until(lambda: terminal_of(shell.pid))
        peer = Peer(os.getuid(), Process(shell.pid, "ssh"))
        destination = Destination("host", b"", forwarded=forwarded)
        wish = replace(LOGIN, peer=peer, destination=destination)
        Terminals(lambda: 0.0).tell(wish)
        shell.kill()
    assert bool(terminal.shown()) is not forwarded


@pytest.mark.parametrize(
    ("device", "path"),
    [
        ((136, 3), "/dev/pts/3"),
        ((4, 1), "/dev/tty1"),
        ((4, 64), "/dev/ttyS0"),
        ((254, 9999), os.devnull),
    ],
)
def test_a_terminal_has_the_name_that_the_system_gives_it(
    device: tuple[int, int], path: str
) -> None:
    """A console and a serial line as well."""
    major, minor = device
    if path.startswith("/dev/tty") and not Path(f"/sys/dev/char/{major}:{minor}").exists():
        pytest.skip("this system has no such terminal")
    assert Seat(1, 1, 1, os.makedev(major, minor)).where == path
