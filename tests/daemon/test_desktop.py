"""The daemon on a desktop: a screen that locks, a panel on the bus, a login over a hop.

The dialogs themselves are tried in tests/prompt.
"""

import asyncio
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from hsmagent.config.file import Config
from hsmagent.daemon.desktop import Desktop
from hsmagent.desktop.let_go import Told, Why
from hsmagent.desktop.service import AGENT, NAME, PATH, Agent, Caller
from hsmagent.model import TokenId
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.sshd import Sshd
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.desktop.dbusmock import mocked
from tests.parts.desktop.joined import joined
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import async_until, until

PROMPTER = "org.gnome.keyring.SystemPrompter"
GNOME = "org.gnome.ScreenSaver"
HELLO = ("127.0.0.1", "echo", "hello")


@pytest.fixture(scope="module")
def display() -> Iterator[Screen]:
    with screen() as one:
        yield one


@pytest.fixture
def session_bus(display: Screen) -> Iterator[PrivateBus]:
    with private_bus(display.environment) as bus:
        bus.add_service(PROMPTER, "/usr/libexec/gcr-prompter")
        bus.start()
        yield bus


@pytest.fixture
def desktop(start: Start, furnished: SoftHsm, session_bus: PrivateBus) -> AgentProcess:
    """Start a daemon that has a session bus with a prompter, and a system bus that is the same."""
    return start(
        module_config(furnished),
        DBUS_SESSION_BUS_ADDRESS=session_bus.address,
        DBUS_SYSTEM_BUS_ADDRESS=session_bus.address,
    )


@pytest.fixture
def sshd(desktop: AgentProcess, tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd", [desktop.hsmagent("pubkey", "ec").stdout.strip()])
    server.start()
    yield server
    server.stop()


def logging_in(agent: AgentProcess, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0]


def logged_in(agent: AgentProcess) -> bool:
    return bool(agent.json("status")["tokens"][0]["logged_in"])


def test_the_screen_lock_logs_out_and_nothing_is_asked_behind_it(
    desktop: AgentProcess, sshd: Sshd, session_bus: PrivateBus, display: Screen
) -> None:
    desktop.unlock(PIN)
    with mocked("gnome_screensaver", session_bus.address):
        call = gdbus(session_bus, "org.gnome.ScreenSaver", "/org/gnome/ScreenSaver")
        until(lambda: call("org.gnome.ScreenSaver.GetActive").returncode == 0)
        call("org.gnome.ScreenSaver.SetActive", "true")
        until(lambda: not logged_in(desktop))
        refused = desktop.run(["ssh", *sshd.ssh_options, *HELLO])
        assert refused.returncode == 255
        assert display.windows() == []
        assert "the screen is locked" in desktop.json("log")["entries"][-1]["reason"]
        call("org.gnome.ScreenSaver.SetActive", "false")
        login = logging_in(desktop, ["ssh", *sshd.ssh_options, *HELLO])
        display.wait_for_window()
        desktop.unlock(PIN)
        assert answer(login) == "hello\n"


def test_the_bus_shows_the_token_locks_it_and_raises_the_prompt(
    desktop: AgentProcess, session_bus: PrivateBus, display: Screen
) -> None:
    desktop.unlock(PIN)
    call = gdbus(session_bus, "org.hsmagent.Agent1", "/org/hsmagent/Agent1")
    until(lambda: call("org.freedesktop.DBus.Peer.Ping").returncode == 0)
    objects = call("org.freedesktop.DBus.ObjectManager.GetManagedObjects").stdout
    assert "'Label': <'work'>" in objects
    assert "'Unlocked': <true>" in objects
    path = objects.partition("/org/hsmagent/Agent1/token/")[2].partition("'")[0]
    assert call("org.hsmagent.Agent1.LockAll").returncode == 0
    until(lambda: not logged_in(desktop))
    token = f"/org/hsmagent/Agent1/token/{path}"
    raised = subprocess.Popen(
        gdbus_command("org.hsmagent.Agent1", token, "org.hsmagent.Token1.Unlock"),
        env=bus_environment(session_bus),
        stdout=subprocess.PIPE,
        text=True,
    )
    display.wait_for_window()
    display.type(PIN)
    display.press("Return")
    assert answer(raised).strip() == "()"
    assert logged_in(desktop)


def test_a_forwarded_hop_is_named_and_can_be_confirmed(
    start: Start, furnished: SoftHsm, session_bus: PrivateBus, display: Screen, tmp_path: Path
) -> None:
    config = module_config(furnished, '[[key]]\nmatch = "ec"\nconfirm = "forwarded"\n')
    agent = start(config, DBUS_SESSION_BUS_ADDRESS=session_bus.address)
    agent.unlock(PIN)
    line = agent.hsmagent("pubkey", "ec").stdout.strip()
    first = Sshd(tmp_path / "first", [line], ["AllowAgentForwarding yes"])
    second = Sshd(tmp_path / "second", [line])
    first.start()
    second.start()
    known = (tmp_path / "second" / "known_hosts").read_text()
    user_known = Path(agent.environment["HOME"], ".ssh", "known_hosts")
    user_known.parent.mkdir(mode=0o700)
    user_known.write_text(known.replace("[127.0.0.1]", "[second.example.org]"))
    onward = shlex.join(["ssh", *second.ssh_options, *HELLO])
    login = logging_in(agent, ["ssh", "-A", *first.ssh_options, "127.0.0.1", onward])
    display.wait_for_window()
    display.press("Return")
    assert answer(login) == "hello\n"
    first.stop()
    second.stop()
    hops = [(entry["destination"], entry["forwarded"]) for entry in agent.json("log")["entries"]]
    assert hops[0][1] is False
    assert hops[1][1] is True
    assert "second.example.org" in hops[1][0]


# -- talking to the bus as a panel would -----------------------------------------------------


def bus_environment(bus: PrivateBus) -> dict[str, str]:
    return {"DBUS_SESSION_BUS_ADDRESS": bus.address, "PATH": "/usr/bin:/bin"}


def gdbus_command(name: str, path: str, method: str, *arguments: str) -> list[str]:
    return [
        *("gdbus", "call", "--session", "--dest", name),
        *("--object-path", path, "--method", method, *arguments),
    ]


class Gdbus:
    def __init__(self, bus: PrivateBus, name: str, path: str) -> None:
        self._bus = bus
        self._name = name
        self._path = path

    def __call__(self, method: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            gdbus_command(self._name, self._path, method, *arguments),
            env=bus_environment(self._bus),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def gdbus(bus: PrivateBus, name: str, path: str) -> Gdbus:
    return Gdbus(bus, name, path)


# -- on buses that come late or never --------------------------------------------------------


async def no_lock(_tokens: Sequence[TokenId]) -> None:
    pass


async def no_unlock(_token: TokenId, _caller: Caller) -> None:
    pass


async def test_it_bears_that_a_bus_comes_late_and_the_other_never(
    private: PrivateBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", private.address)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    let_go: list[Why] = []

    async def on_let_go(why: Why) -> None:
        let_go.append(why)

    desktop = Desktop(
        Config,
        agent=Agent(tuple, no_lock, no_unlock, lambda: 0.0),
        told=Told(on_let_go, lambda _reason: None),
        state=tmp_path,
        clock=lambda: 0.0,
        asked=lambda _request, _where: None,
    )
    private.stop()
    task = asyncio.create_task(desktop.run())
    await asyncio.sleep(0)
    desktop.look(())
    private.start()
    async with joined(private.address) as other:
        owners: list[str] = []
        await other.watch_owner(NAME, owners.append)
        await async_until(lambda: owners and owners[-1])
        await other.call(NAME, PATH, AGENT, "LockAll")
        with mocked("gnome_screensaver", private.address):
            lockers: list[str] = []
            await other.watch_owner(GNOME, lockers.append)
            await async_until(lambda: lockers and lockers[-1])
            await other.call(GNOME, "/org/gnome/ScreenSaver", GNOME, "SetActive", "b", [True])
            await async_until(lambda: let_go == [Why.SCREEN_LOCK])
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await async_until(lambda: not owners[-1])
