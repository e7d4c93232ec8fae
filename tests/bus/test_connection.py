"""One connection, to a peer that only pretends to be a bus."""

import asyncio
import fcntl
import os
import socket

import pytest

from hsmagent.bus import Message, codec, connection
from hsmagent.errors import ProtocolError
from tests.parts.desktop.bus import PrivateBus
from tests.parts.until import async_until

PATH = "/org/hsmagent/Test"
IFACE = "org.hsmagent.Test"


@pytest.mark.parametrize(
    "answer",
    [b"", b"OK", b"REJECTED EXTERNAL\r\n", b"x" * 5000, b"OK 1234\r\nmore\r\n", b"\xff\xfe\r\n"],
)
async def test_a_bus_that_fails_authentication_is_left_and_never_spun_on(
    private: PrivateBus, answer: bytes
) -> None:
    path = private.folder / "false"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0)
        opening = asyncio.create_task(
            connection.open_connection(str(path), lambda _message: None, lambda _reason: None)
        )
        peer, _ = await loop.sock_accept(listener)
        with peer:
            if answer:
                await loop.sock_sendall(peer, answer)
        async with asyncio.timeout(2):  # a reader that spins would not come back at all
            with pytest.raises((OSError, EOFError, ProtocolError)):
                await opening


class FalseBus:
    """Lets one client in and sends it what the test says."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.loop = asyncio.get_running_loop()

    async def let_in(self) -> None:
        await self._read_until(b"\r\n")
        await self.loop.sock_sendall(self.peer, b"OK 1234\r\n")
        await self._read_until(b"\r\n")
        await self.loop.sock_sendall(self.peer, b"AGREE_UNIX_FD\r\n")
        await self._read_until(b"BEGIN\r\n")

    async def _read_until(self, end: bytes) -> None:
        data = b""
        while not data.endswith(end):
            data += await self.loop.sock_recv(self.peer, 1)


async def against_false_bus(
    private: PrivateBus,
) -> tuple[connection.Connection, FalseBus, list[Message], list[str]]:
    path = private.folder / "false"
    messages: list[Message] = []
    lost: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(0)
        opening = asyncio.create_task(
            connection.open_connection(str(path), messages.append, lost.append)
        )
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
    peer.settimeout(0)
    false = FalseBus(peer)
    await false.let_in()
    return await opening, false, messages, lost


def signal_bytes(text: str) -> bytes:
    kind = codec.Kind.SIGNAL
    return codec.encode(
        Message(kind, 1, path=PATH, interface=IFACE, member="M", signature="s", body=[text])
    )


async def test_descriptors_are_close_on_exec_and_not_leaked(private: PrivateBus) -> None:
    link, false, messages, lost = await against_false_bus(private)
    read_end, write_end = os.pipe()
    data = signal_bytes("with a descriptor")
    socket.send_fds(false.peer, [data[:20]], [write_end])
    await false.loop.sock_sendall(false.peer, data[20:])
    await async_until(lambda: messages)
    (fd,) = messages[0].fds
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
    # One with a message that cannot be read, one with a message that never ends.
    broken = bytearray(data)
    broken[1] = 77
    socket.send_fds(false.peer, [bytes(broken)], [write_end])
    socket.send_fds(false.peer, [data[:30]], [write_end])
    false.peer.close()
    await async_until(lambda: lost)
    os.close(write_end)
    assert os.read(read_end, 1) == b""  # end-of-file: no copy is open anywhere
    os.close(read_end)
    link.close()


async def test_a_message_that_cannot_be_read_costs_only_itself(private: PrivateBus) -> None:
    link, false, messages, lost = await against_false_bus(private)
    for place, value in ((1, 9), (3, 7), (20, 255), (-30, 200)):
        broken = bytearray(signal_bytes("broken"))
        broken[place] = value
        await false.loop.sock_sendall(false.peer, bytes(broken))
    await false.loop.sock_sendall(false.peer, signal_bytes("fine"))
    await async_until(lambda: messages and messages[-1].body == ["fine"])
    assert not lost
    false.peer.close()
    await async_until(lambda: lost)
    link.close()


@pytest.mark.parametrize("garbage", [b"x" * 16, b"l" + bytes(15)])
async def test_a_stream_that_is_no_dbus_is_left(private: PrivateBus, garbage: bytes) -> None:
    link, false, messages, lost = await against_false_bus(private)
    await false.loop.sock_sendall(false.peer, garbage)
    await async_until(lambda: lost)
    assert not messages
    false.peer.close()
    link.close()


async def test_a_dribbling_bus_is_understood(private: PrivateBus) -> None:
    link, false, messages, _ = await against_false_bus(private)
    for byte in signal_bytes("slow"):
        await false.loop.sock_sendall(false.peer, bytes([byte]))
        await asyncio.sleep(0)
    await async_until(lambda: messages)
    assert messages[0].body == ["slow"]
    false.peer.close()
    link.close()
