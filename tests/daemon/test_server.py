"""Hostile and unlucky clients against the sockets; what the frames mean does not matter here."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from hsmagent import frame
from hsmagent.daemon import server
from hsmagent.daemon.connection import Send
from hsmagent.daemon.listening import listen
from hsmagent.daemon.server import Server
from hsmagent.daemon.turns import SLICE, Turns
from hsmagent.tasks import in_a_task
from tests.parts.until import async_until


class Ticks:
    """A clock of which a slice of the turns takes three looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += SLICE / 3
        return self.now


class Echo:
    """Answers at once, but for frames that begin with "wait"."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.ended = 0

    def end(self) -> None:
        self.ended += 1

    def answered(self, body: bytearray) -> None:
        """Take note that it is this frame's turn."""

    def answer(self, body: bytearray) -> bytes | Coroutine[Any, Any, bytes]:
        if body.startswith(b"break"):
            raise RuntimeError
        if body.startswith((b"wait", b"fail")):
            return self.work(body)
        self.answered(body)
        return bytes(body)

    async def work(self, body: bytearray) -> bytes:
        if b"errand" not in body:
            await in_a_task()
        if body.startswith(b"fail"):
            raise RuntimeError
        await self.held.wait()
        self.answered(body)
        return bytes(body)


class Running:
    def __init__(self, path: Path, uids: set[int]) -> None:
        self.path = path
        self.conversations: list[Echo] = []
        self.server = Server(listen(path), self._open, uids=uids, turns=Turns(Ticks()))

    def _open(self, _sock: socket.socket, _: Send) -> Echo:
        self.conversations.append(Echo())
        return self.conversations[-1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))


class NoFilesLeft:
    """A listening socket of a process that has as many files open as it may."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.times = 0

    def fileno(self) -> int:
        return self._listening.fileno()

    def accept(self) -> tuple[socket.socket, str]:
        self.times += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    it = Running(tmp_path / "s", {os.getuid()})
    await it.server.start()
    yield it
    await it.server.close()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    return await reader.readexactly(length)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_replies_keep_the_order_of_the_requests(running: Running) -> None:
    reader, writer = await running.connect()
    for body in (b"one", b"wait two", b"three"):
        writer.write(frame.encode(body))
    assert await read_frame(reader) == b"one"
    running.conversations[0].held.set()
    assert await read_frame(reader) == b"wait two"
    assert await read_frame(reader) == b"three"
    await hang_up(writer)


async def test_a_waiting_connection_keeps_nobody_waiting(running: Running) -> None:
    _, waiting = await running.connect()
    waiting.write(frame.encode(b"wait"))
    reader, writer = await running.connect()
    writer.write(frame.encode(b"now"))
    assert await read_frame(reader) == b"now"
    await hang_up(waiting)
    await hang_up(writer)


@pytest.mark.parametrize("length", [0, 262_145, 0xFFFFFFFF])
async def test_a_bad_length_ends_the_connection_and_no_other(running: Running, length: int) -> None:
    reader, writer = await running.connect()
    other_reader, other = await running.connect()
    writer.write(length.to_bytes(4, "big") + b"x")
    assert await reader.read() == b""
    other.write(frame.encode(b"still here"))
    assert await read_frame(other_reader) == b"still here"
    await hang_up(writer)
    await hang_up(other)


async def test_a_frame_may_come_byte_by_byte(running: Running) -> None:
    reader, writer = await running.connect()
    for byte in frame.encode(b"slowly"):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert await read_frame(reader) == b"slowly"
    await hang_up(writer)


async def test_the_largest_frame_is_answered_even_behind_one_that_waits(running: Running) -> None:
    reader, writer = await running.connect()
    body = os.urandom(frame.SSH_MAX_FRAME)
    writer.write(frame.encode(b"wait") + frame.encode(body) * 3)
    while not running.conversations:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    running.conversations[0].held.set()
    assert await read_frame(reader) == b"wait"
    for _ in range(3):
        assert await read_frame(reader) == body
    await hang_up(writer)


async def test_what_a_peer_sends_while_it_waits_is_bounded(running: Running) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(running.path))
    sock.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, frame.encode(b"wait"))
    flood = frame.encode(bytes(100_000)) * 100
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.sock_sendall(sock, flood), 0.3)
    [connection] = running.server._connections
    assert connection._reader.pending < 2 * frame.SSH_MAX_FRAME
    sock.close()


async def test_many_small_frames_that_wait_are_bounded_as_well(running: Running) -> None:
    reader, writer = await running.connect()
    while not running.conversations:
        await asyncio.sleep(0)
    running.conversations[0].held.set()
    [connection] = running.server._connections
    flood = frame.encode(b"wait") * 100_000
    writer.write(flood)
    left, most = len(flood), 0
    while left:
        left -= len(await reader.read(1 << 16))
        most = max(most, connection._reader.pending)
    assert most < 2 * frame.SSH_MAX_FRAME
    await hang_up(writer)


async def test_a_peer_that_sends_many_frames_keeps_nobody_waiting(running: Running) -> None:
    many_reader, many = await running.connect()
    reader, writer = await running.connect()
    many.write(frame.encode(b"many") * 1000)
    writer.write(frame.encode(b"one"))
    assert await read_frame(reader) == b"one"
    so_far = await many_reader.read(1 << 20)
    assert len(so_far) < 100 * len(frame.encode(b"many"))
    rest = await many_reader.readexactly(len(frame.encode(b"many")) * 1000 - len(so_far))
    assert so_far + rest == frame.encode(b"many") * 1000
    await hang_up(many)
    await hang_up(writer)


@pytest.mark.parametrize("kind", [b"now", b"wait"])
async def test_a_process_with_many_connections_has_no_more_turns_than_one_with_one(
    running: Running, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    pids = iter([*[1] * 100, 2])
    monkeypatch.setattr(server, "credentials_of", lambda _: (next(pids), os.getuid()))
    order: list[bytes] = []
    monkeypatch.setattr(Echo, "answered", lambda _, body: order.append(bytes(body)))
    peers = [await running.connect() for _ in range(101)]
    while len(running.conversations) < len(peers):
        await asyncio.sleep(0)
    for conversation in running.conversations:
        conversation.held.set()
    for number, (_, writer) in enumerate(peers, 1):
        writer.write(frame.encode(kind + b"%d" % number) * 5)
    for reader, _ in peers:
        assert await read_frame(reader)
    assert order.index(kind + b"101") <= 3
    for _, writer in peers:
        await hang_up(writer)


async def test_a_frame_is_answered_in_each_turn_however_slow_the_machine_is() -> None:
    clock = iter(range(1000))  # a slice is over at each look
    turns, answered = Turns(lambda: float(next(clock))), list[int]()
    turns.connections = 2
    for number in range(10):
        turns.take(number, partial(answered.append, number))
    for count in range(1, 10):
        assert answered == list(range(count))
        await asyncio.sleep(0)
    assert answered == list(range(10))


async def test_a_lone_connection_waits_for_no_turn_and_may_send_any_number_of_frames(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    turns: list[object] = []
    reader, writer = await running.connect()
    writer.write(frame.encode(b"first"))
    assert await read_frame(reader) == b"first"
    scheduled = loop.call_soon

    def call_soon(callback: Callable[..., object], *given: Any, **more: Any) -> asyncio.Handle:
        if isinstance(getattr(callback, "__self__", None), Turns):
            turns.append(callback)
        return scheduled(callback, *given, **more)

    monkeypatch.setattr(loop, "call_soon", call_soon)
    writer.write(frame.encode(b"alone"))
    assert await read_frame(reader) == b"alone"
    assert not turns
    many = 3000  # more than Python's stack takes
    writer.write(frame.encode(b"x") * many)
    for _ in range(many):
        assert await read_frame(reader) == b"x"
    assert turns
    await hang_up(writer)


async def test_a_peer_that_does_not_read_costs_a_bounded_buffer(running: Running) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(running.path))
    sock.settimeout(0)
    loop = asyncio.get_running_loop()
    flood = frame.encode(bytes(100_000)) * 200
    sender = asyncio.ensure_future(loop.sock_sendall(sock, flood))
    await asyncio.wait([sender], timeout=0.3)
    assert not sender.done()
    [connection] = running.server._connections
    assert len(connection._unsent) < 2 * frame.SSH_MAX_FRAME
    reader, writer = await running.connect()
    writer.write(frame.encode(b"others are served"))
    assert await read_frame(reader) == b"others are served"
    await hang_up(writer)
    # It gets everything once it reads.
    left = len(flood)
    while left:
        left -= len(await loop.sock_recv(sock, 1 << 20))
    await sender
    sock.close()


async def test_five_hundred_connections_are_served(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.server, "_most_each", 500)  # they are all this process's
    peers = [await running.connect() for _ in range(500)]
    for number, (_, writer) in enumerate(peers):
        writer.write(frame.encode(b"%d" % number))
    for number, (reader, _) in enumerate(peers):
        assert await read_frame(reader) == b"%d" % number
    for _, writer in peers:
        await hang_up(writer)
    while running.server._connections:
        await asyncio.sleep(0)


async def test_beyond_the_limit_new_ones_are_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.server, "_most", 2)
    peers = [await running.connect() for _ in range(2)]
    reader, writer = await running.connect()
    assert await reader.read() == b""
    for _, open_writer in (*peers, (reader, writer)):
        await hang_up(open_writer)


async def test_one_process_leaves_room_for_the_others(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    peers = [await running.connect() for _ in range(256)]
    for _ in range(3):
        reader, writer = await running.connect()
        assert await reader.read() == b""
        await hang_up(writer)
    told = [line for line in caplog.messages if line.startswith("refused connections")]
    assert told == [f"refused connections of process {os.getpid()}: it has 256 open"]
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX);"
        f"s.connect({str(running.path)!r}); s.sendall(bytes((0, 0, 0, 1, 7)));"
        "print(s.recv(100).hex())"
    )
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=subprocess.PIPE
    )
    assert (await other.communicate())[0] == b"0000000107\n"
    for _, writer in peers:
        await hang_up(writer)
    while running.server._connections:
        await asyncio.sleep(0)
    _, writer = await running.connect()
    while not running.server._connections:
        await asyncio.sleep(0)
    assert running.server._held == {os.getpid(): 1}
    await hang_up(writer)


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "most"),
    [(1024, 4096, 4096, 585), (1024, 1024, 1024, 146), (7169, 7169, 7169, 1024)],
)
def test_connections_leave_files_for_everything_else(
    soft: int, hard: int, raised: int, most: int
) -> None:
    program = (
        "import resource; from hsmagent.daemon.server import room_for_connections;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "print(room_for_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(most), str(raised)]


async def test_errands_that_wait_for_nothing_do_not_pile_up(running: Running) -> None:
    reader, writer = await running.connect()
    while not running.conversations:
        await asyncio.sleep(0)
    running.conversations[0].held.set()
    flood = frame.encode(b"wait errand") * 3000
    writer.write(flood)
    assert await reader.readexactly(len(flood)) == flood
    await hang_up(writer)


@pytest.mark.parametrize("body", [b"wait", b"wait errand"])
async def test_a_peer_that_leaves_cancels_what_it_asked(running: Running, body: bytes) -> None:
    _, writer = await running.connect()
    writer.write(frame.encode(body))
    while not any(c._errand for c in running.server._connections):
        await asyncio.sleep(0)
    [connection] = running.server._connections
    assert connection._errand is not None
    task = connection._errand.task
    assert task is not None
    await hang_up(writer)
    while not task.done():
        await asyncio.sleep(0)
    assert task.cancelled()


async def test_who_asks_nothing_more_still_gets_its_replies(running: Running) -> None:
    reader, writer = await running.connect()
    body = os.urandom(frame.SSH_MAX_FRAME)
    writer.write(frame.encode(body) * 2)
    await writer.drain()
    writer.write_eof()
    assert await reader.readexactly(4 + len(body)) == frame.encode(body)
    await hang_up(writer)
    while running.server._connections:
        await asyncio.sleep(0)
    assert running.conversations[0].ended == 1


async def test_without_files_left_a_connection_waits(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ACCEPT_AGAIN", 0.05)
    listening = running.server._listening
    fails = NoFilesLeft(listening)
    running.server._listening = cast("socket.socket", fails)
    reader, writer = await running.connect()
    writer.write(frame.encode(b"patience"))
    await async_until(lambda: fails.times > 1)
    running.server._listening = listening
    assert await read_frame(reader) == b"patience"
    await hang_up(writer)


@pytest.mark.parametrize("before", [b"", frame.encode(b"one")])
@pytest.mark.parametrize("fault", [b"fail", b"fail errand", b"break"])
async def test_a_fault_of_ours_ends_one_connection(
    running: Running, before: bytes, fault: bytes
) -> None:
    reader, writer = await running.connect()
    writer.write(before + frame.encode(fault))
    assert await reader.read() in (b"", before)
    reader, again = await running.connect()
    again.write(frame.encode(b"next"))
    assert await read_frame(reader) == b"next"
    await hang_up(writer)
    await hang_up(again)


async def test_another_uid_is_refused(tmp_path: Path) -> None:
    # We cannot change our uid in a test, so the server serves somebody else.
    strangers = Running(tmp_path / "s", {os.getuid() + 1})
    await strangers.server.start()
    reader, writer = await strangers.connect()
    answer = b""
    with suppress(ConnectionError):  # it may be hung up on before it has asked
        writer.write(frame.encode(b"let me in"))
        answer = await reader.read()
    assert answer == b""
    assert strangers.conversations == []
    await hang_up(writer)
    await strangers.server.close()
