"""What the daemon costs: a signature, a list, a login, and being there.

Counted in Python calls, system calls and imports. A daemon that sleeps between two signatures runs
everything cold, so that the number of functions that it goes through says more about its time than
a clock on a busy machine does.
"""

import asyncio
import re
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, FrameType

import pytest

from hsmagent import frame
from hsmagent.config.file import Config, read
from hsmagent.daemon.daemon import Daemon
from hsmagent.door import activity
from hsmagent.ssh import keys, messages
from hsmagent.ssh.agent import LIST
from hsmagent.token import hotplug
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import ANY_DATA, AgentProcess, unknown_data
from tests.parts.desktop.bus import PrivateBus
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import async_until, until
from tests.ssh import builders

ROOT = Path(__file__).parents[2]
ROUNDS = 50
# From a whole frame in to its reply out, asyncio's own calls included. A generator or a coroutine
# counts each time it goes on; functions in C do not count. A signature takes 150 on a
# quiet machine; on a busy one the loop turns more often for the same work.
MOST_CALLS, MOST_CALLS_ALONE = 190, 210
MOST_CALLS_OF_A_LIST = 36
# A connection, a list and a signature; who asks is read from /proc.
MOST_CALLS_OF_A_LOGIN = 380
# Of the daemon; epoll_wait and its kin are most of a signature's.
MOST_SYSTEM_CALLS = 13
MOST_SYSTEM_CALLS_OF_A_LIST = 5
MOST_SYSTEM_CALLS_OF_A_LOGIN = 55
# In two seconds, in which a watcher that looks by the clock would look forty times, and whoever
# looks for a bus by the clock would once or twice. Three dozen are asyncio's, for our own sleep.
MOST_WHILE_IDLE = 60

HOST, SESSION = builders.ed25519_key(), bytes(range(128, 160))


class Calls:
    """Counts the Python calls of this thread while it is entered."""

    def __init__(self) -> None:
        self.by_code = Counter[CodeType]()

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, called: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            self.by_code[called.f_code] += 1

    def each(self, rounds: int) -> int:
        """Return the calls of one round; what does not happen in each of them is left out."""
        return sum(count // rounds for count in self.by_code.values())

    def table(self, rounds: int) -> str:
        """Return the calls of one round by function, most first."""
        return "\n".join(
            f"{count // rounds:5} {Path(code.co_filename).name}: {code.co_qualname}"
            for code, count in self.by_code.most_common()
            if count >= rounds
        )


class Client:
    """A client in a thread of its own; none of its work is counted."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = frame.Reader(frame.SSH_MAX_FRAME)

    def ask(self, body: bytes, times: int = 1) -> bytes:
        """Ask so many times, one after the other; return the last reply."""
        reply = None
        for _ in range(times):
            self._socket.sendall(frame.encode(body))
            while (reply := self._reader.next_frame()) is None:
                self._reader.feed(self._socket.recv(65536))
        assert reply is not None
        return bytes(reply)

    def close(self) -> None:
        self._socket.close()


def login(blob: bytes) -> bytes:
    """Return what ssh has signed to log in where its connection was bound."""
    host = builders.blob_of(HOST)
    return builders.userauth(SESSION, blob, algorithm="ecdsa-sha2-nistp256", host_key=host)


def unknown(_blob: bytes) -> bytes:
    """Return what `ssh-add -T` has signed, and whoever else asks for no login."""
    return unknown_data(180)


@asynccontextmanager
async def running(config: Config, folder: Path) -> AsyncIterator[Daemon]:
    """Run a daemon in this very loop, whose calls can be counted."""
    daemon = Daemon(lambda _: config, folder / "run", folder / "state")
    task = asyncio.create_task(daemon.run())
    try:
        await async_until(lambda: task.done() or daemon._parts.tokens.signers())
        yield daemon
    finally:
        daemon._stopping.set()
        await task


@pytest.mark.parametrize("gathered", [True, False], ids=["in a row", "alone"])
@pytest.mark.parametrize("to_sign", [login, unknown])
async def test_a_warm_signature_takes_few_python_calls(
    furnished: SoftHsm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to_sign: Callable[[bytes], bytes],
    *,
    gathered: bool,
) -> None:
    if not gathered:  # each signature is written to the log at once, as one that comes by itself is
        monkeypatch.setattr(activity, "GATHER", 0.0)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    config = read(module_config(furnished, ANY_DATA), "config.toml")
    async with running(config, tmp_path) as daemon:
        signer = next(each for each in daemon._parts.tokens.signers() if each.key.label == "ec")
        await signer.token.login(bytearray(PIN.encode()))
        blob = keys.blob_of(signer.key.spki)
        assert blob is not None
        client, calls = Client(tmp_path / "run" / "ssh.sock"), Calls()
        bind = builders.bind_request(builders.binding(HOST, SESSION))
        assert await asyncio.to_thread(client.ask, bind) == messages.SUCCESS
        request = builders.sign_request(blob, to_sign(blob))
        await asyncio.to_thread(client.ask, request, 3)
        imported = set(sys.modules)
        with calls:
            reply = await asyncio.to_thread(client.ask, request, ROUNDS)
        client.close()
    assert set(sys.modules) == imported
    assert isinstance(messages.decode(reply), messages.SignResponse)
    most = MOST_CALLS if gathered else MOST_CALLS_ALONE
    assert 100 < calls.each(ROUNDS) < most, calls.table(ROUNDS)


@asynccontextmanager
async def unlocked(
    furnished: SoftHsm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[bytes]:
    """Run a daemon, logged in; yield the blob of its P-256 key."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={folder}/none")
    config = read(module_config(furnished, ANY_DATA), "config.toml")
    async with running(config, folder) as daemon:
        signer = next(each for each in daemon._parts.tokens.signers() if each.key.label == "ec")
        await signer.token.login(bytearray(PIN.encode()))
        blob = keys.blob_of(signer.key.spki)
        assert blob is not None
        yield blob


async def test_a_use_is_written_down_after_the_reply(
    furnished: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had_reply: list[bool] = []
    with socket.socket(socket.AF_UNIX) as client:

        def record(_activity: activity.Activity, entry: activity.Entry) -> None:
            assert entry.outcome == activity.USED
            had_reply.append(bool(select.select([client], [], [], 0)[0]))

        monkeypatch.setattr(activity.Activity, "_note", record)
        async with unlocked(furnished, tmp_path, monkeypatch) as blob:
            client.connect(str(tmp_path / "run" / "ssh.sock"))
            client.sendall(frame.encode(builders.sign_request(blob, unknown(blob))))
            await async_until(lambda: bool(had_reply))
    assert had_reply == [True]


async def test_a_list_takes_few_python_calls(
    furnished: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unlocked(furnished, tmp_path, monkeypatch):
        client, calls = Client(tmp_path / "run" / "ssh.sock"), Calls()
        await asyncio.to_thread(client.ask, LIST, 3)
        with calls:
            await asyncio.to_thread(client.ask, LIST, ROUNDS)
        client.close()
    assert 20 < calls.each(ROUNDS) < MOST_CALLS_OF_A_LIST, calls.table(ROUNDS)


def log_in(path: Path, blob: bytes, times: int) -> None:
    """Do what ssh does, so many times: connect, list, sign, hang up."""
    for _ in range(times):
        client = Client(path)
        client.ask(LIST)
        reply = client.ask(builders.sign_request(blob, unknown(blob)))
        client.close()
        assert isinstance(messages.decode(reply), messages.SignResponse)


async def test_a_login_takes_few_python_calls(
    furnished: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, path = Calls(), tmp_path / "run" / "ssh.sock"
    async with unlocked(furnished, tmp_path, monkeypatch) as blob:
        await asyncio.to_thread(log_in, path, blob, 3)
        with calls:
            await asyncio.to_thread(log_in, path, blob, ROUNDS)
    assert 200 < calls.each(ROUNDS) < MOST_CALLS_OF_A_LOGIN, calls.table(ROUNDS)


class Traced(AgentProcess):
    """A daemon whose system calls are counted, by strace."""

    def __init__(self, home: Path, config: str) -> None:
        super().__init__(home, config)
        self._trace = home / "strace"
        self._program = ["strace", "-D", "-qq", "-o", str(self._trace), *self._program]

    def system_calls(self) -> int:
        """Return how many there were so far; waits until no more come."""
        before, now = -1, 0
        while before != now:
            time.sleep(0.3)
            before, now = now, self._trace.read_bytes().count(b"\n")
        return now


def test_few_system_calls(furnished: SoftHsm, tmp_path: Path) -> None:
    agent = Traced(tmp_path / "h", module_config(furnished, ANY_DATA))
    agent.start()
    try:
        agent.unlock(PIN)
        client = Client(agent.ssh_socket)
        listed = messages.decode(client.ask(LIST))
        assert isinstance(listed, messages.IdentitiesAnswer)
        blob = next(blob for blob, _ in listed.identities if keys.type_name(blob) != keys.SSH_RSA)
        request = builders.sign_request(blob, unknown(blob))

        def of_each(do: Callable[[int], object]) -> float:
            do(3)
            before = agent.system_calls()
            do(ROUNDS)
            return (agent.system_calls() - before) / ROUNDS

        assert of_each(lambda times: client.ask(request, times)) < MOST_SYSTEM_CALLS
        assert of_each(lambda times: client.ask(LIST, times)) < MOST_SYSTEM_CALLS_OF_A_LIST
        login = of_each(lambda times: log_in(agent.ssh_socket, blob, times))
        assert login < MOST_SYSTEM_CALLS_OF_A_LOGIN
        client.close()
    finally:
        agent.stop()


@pytest.mark.parametrize("there", [True, False], ids=["with a bus", "without"])
async def test_a_daemon_that_nobody_asks_sleeps(
    furnished: SoftHsm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private: PrivateBus,
    *,
    there: bool,
) -> None:
    monkeypatch.setattr(hotplug, "INTERVAL", 0.05)
    for which in ("SESSION", "SYSTEM"):
        address = private.address if there else f"unix:path={tmp_path}/none"
        monkeypatch.setenv(f"DBUS_{which}_BUS_ADDRESS", address)
    config = read(module_config(furnished), "config.toml")
    async with running(config, tmp_path) as daemon:
        buses = daemon._desktop._session, daemon._desktop._system
        await async_until(lambda: all(bus.connected is there for bus in buses))
        await asyncio.sleep(0.5)  # what the start has set off
        calls = Calls()
        with calls:
            await asyncio.sleep(2.0)
    assert calls.each(1) < MOST_WHILE_IDLE, calls.table(1)


def test_a_bus_that_comes_late_is_joined_at_once(
    furnished: SoftHsm, private: PrivateBus, start: Start
) -> None:
    private.stop()
    (private.folder / "bus").unlink(missing_ok=True)
    where = {f"DBUS_{which}_BUS_ADDRESS": private.address for which in ("SESSION", "SYSTEM")}
    agent = start(module_config(furnished), **where)
    time.sleep(3.5)  # whoever tries again ever more rarely would be at more than three seconds
    private.start()
    until(lambda: agent.logged().count("joined the ") == 2, seconds=2.0)


# What few have a use for, and what brings much along. Each is imported where it is used.
RARE = {
    *("_ssl", "asn1crypto", "bcrypt._bcrypt", "cryptography.x509", "email", "html"),
    *("importlib.abc", "importlib.resources", "keyring", "paramiko", "pkcs11", "pyexpat"),
    *("argparse", "shutil", "tempfile", "uuid"),
    *("hsmagent.worker.orders", "hsmagent.worker.pcsc", "hsmagent.schsm"),
}
RARE_IN_A_WORKER = {
    *RARE - {"pkcs11"},
    *("asyncio", "cryptography", "logging", "pathlib", "selectors", "socket", "urllib"),
}


def test_a_daemon_holds_nothing_that_few_need(furnished: SoftHsm, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "h", module_config(furnished))
    agent._program = [sys.executable, "-X", "importtime", "-m", "hsmagent"]
    agent.start()
    try:
        until(lambda: len(agent.json("keys")) > 1)
    finally:
        agent.stop()
    imported = set(re.findall(r"^import time: .* \| +(\S+)$", agent.logged(), re.MULTILINE))
    assert "hsmagent.token.signer" in imported
    assert not RARE & imported


def test_a_worker_holds_nothing_that_few_need() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, hsmagent.worker.main; print(*sys.modules)"],
        cwd=ROOT,
        env={},  # coverage, too, would import
        capture_output=True,
        text=True,
        check=True,
    )
    assert not RARE_IN_A_WORKER & set(done.stdout.split())
