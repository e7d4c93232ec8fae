"""The daemon, real ssh programs, and the desktop's dialog between them."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from hsmagent.prompt.system import NAME
from tests.daemon.conftest import module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

GCR_PROMPTER = "/usr/libexec/gcr-prompter"


@dataclass
class Session:
    """A login session: a screen, a bus with its prompter, the daemon."""

    screen: Screen
    bus: PrivateBus
    agent: AgentProcess
    folder: Path
    clients: list[subprocess.Popen[str]] = field(default_factory=list)

    def sign(self) -> subprocess.Popen[str]:
        """Start `ssh-keygen -Y sign` with the token's P-256 key."""
        public = self.folder / "key.pub"
        if not public.exists():
            public.write_text(self.agent.hsmagent("pubkey", "ec").stdout)
        client = subprocess.Popen(
            ["ssh-keygen", "-Y", "sign", "-f", str(public), "-n", "file"],
            env=self.agent.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert client.stdin is not None
        client.stdin.write("text")
        client.stdin.close()
        self.clients.append(client)
        return client

    def answer(self, text: str, key: str, client: subprocess.Popen[str]) -> None:
        """Answer dialogs until the client has ended."""
        while client.poll() is None:
            if self.screen.windows():
                if text:
                    self.screen.press("ctrl+a")
                    self.screen.type(text)
                self.screen.press(key)
            try:
                client.wait(2)
            except subprocess.TimeoutExpired:
                continue

    def output(self, client: subprocess.Popen[str]) -> str:
        assert client.stdout is not None
        return client.stdout.read()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    token = SoftHsm.create(tmp_path / "hsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "02", "ec")
    with screen() as display, private_bus(display.environment) as bus:
        bus.add_service(NAME, GCR_PROMPTER)
        bus.start()
        environment = display.environment | {"DBUS_SESSION_BUS_ADDRESS": bus.address}
        config = module_config(token, '[prompt]\norder = ["system"]\ntimeout = "20s"\n')
        agent = AgentProcess(tmp_path / "home", config, environment, dumpable=True)
        agent.start()
        session = Session(display, bus, agent, tmp_path)
        try:
            yield session
        finally:
            agent.stop()
            for client in session.clients:
                with client:
                    client.kill()


def test_the_pin_typed_in_the_dialog_serves(session: Session) -> None:
    client = session.sign()
    window = session.screen.wait_for_window("work")
    assert session.screen.xdotool("getwindowname", window) == "Unlock work"
    session.answer(PIN, "Return", client)
    assert "BEGIN SSH SIGNATURE" in session.output(client)
    session.screen.wait_until_empty()
    again = session.sign()
    assert again.wait(20) == 0
    assert not session.screen.windows()


def test_two_clients_share_one_dialog(session: Session) -> None:
    first = session.sign()
    session.screen.wait_for_window()
    second = session.sign()
    session.answer(PIN, "Return", first)
    assert second.wait(20) == 0


def test_a_cancel_refuses_and_is_not_asked_again_at_once(session: Session) -> None:
    client = session.sign()
    session.screen.wait_for_window()
    session.answer("", "Escape", client)
    assert client.returncode != 0
    again = session.sign()
    assert again.wait(20) != 0
    assert not session.screen.windows()


def test_a_client_that_gives_up_takes_the_dialog_along(session: Session) -> None:
    client = session.sign()
    session.screen.wait_for_window()
    client.send_signal(signal.SIGTERM)
    client.wait()
    session.screen.wait_until_empty()


def test_a_terminal_unlocks_while_the_dialog_is_up(session: Session) -> None:
    client = session.sign()
    session.screen.wait_for_window()
    assert session.agent.unlock(PIN).returncode == 0
    assert client.wait(20) == 0
    session.screen.wait_until_empty()


def test_the_bus_dies_under_the_dialog(session: Session) -> None:
    client = session.sign()
    session.screen.wait_for_window()
    session.bus.stop()
    # Nothing can ask any more: the request waits for a terminal, all others go on.
    until(lambda: "no window can ask" in session.agent.logged())
    assert session.agent.run(["ssh-add", "-l"]).returncode == 0
    assert session.agent.unlock(PIN).returncode == 0
    assert client.wait(20) == 0
    session.agent.hsmagent("lock")
    session.bus.start()
    until(lambda: session.agent.logged().count("joined the session bus") >= 2, 60)
    client = session.sign()
    session.screen.wait_for_window("work")
    session.answer(PIN, "Return", client)
    assert client.returncode == 0


def test_no_trouble_with_the_bus_costs_a_processor(session: Session) -> None:
    """Not while it hangs, not while it is gone, and not when it hangs up on whoever comes."""

    def cost() -> float:
        before = session.agent.processor_seconds()
        for _ in range(20):
            assert session.agent.run(["ssh-add", "-l"]).returncode == 0
        return session.agent.processor_seconds() - before

    usual = cost()
    with session.bus.frozen():
        assert cost() < usual + 0.5
    session.bus.stop()
    assert cost() < usual + 0.5
    path = session.bus.address.partition("=")[2]
    Path(path).unlink(missing_ok=True)
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();\n"
        "while True: s.accept()[0].close()"
    )
    with subprocess.Popen([sys.executable, "-c", code, path]) as rude:
        until(lambda: Path(path).exists())
        assert cost() < usual + 0.5
        rude.kill()


def test_the_bus_is_killed_and_restarted_under_load(session: Session) -> None:
    """Every request is served meanwhile, and nothing is left behind."""
    public = session.folder / "key.pub"
    public.write_text(session.agent.hsmagent("pubkey", "ec").stdout)
    assert session.agent.unlock(PIN).returncode == 0
    before = session.agent.descriptors()
    stop = threading.Event()

    def has_joined_since(length: int) -> bool:
        return "joined the session bus" in session.agent.logged()[length:]

    def load() -> int:
        served = 0
        while not stop.is_set():
            # No `ssh-add -T`: one in 7000 of its random data begins as a mail does.
            sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(public)]
            assert session.agent.run(sign, stdin="served").returncode == 0
            served += 1
        return served

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(load) for _ in range(4)]
        try:
            for _ in range(4):
                session.bus.stop()
                seen = len(session.agent.logged())
                session.bus.start()
                until(partial(has_joined_since, seen))
                with session.bus.frozen():
                    assert session.agent.run(["ssh-add", "-l"]).returncode == 0
        finally:
            stop.set()
        assert all(client.result() for client in clients)
    until(lambda: session.agent.descriptors() <= before)
