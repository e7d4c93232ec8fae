"""One connection to a bus: socket, authentication, whole messages in and out.

The socket is non-blocking and belongs to this object: whatever ends the connection closes it
there and then. Reading takes one message at a time from the kernel, because descriptors come
with the bytes of the message that they belong to.
"""

import array
import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from hsmagent.bus import codec
from hsmagent.errors import ProtocolError

_log = logging.getLogger(__name__)

LARGEST_MESSAGE = 1 << 20
"""Bytes. A longer message is skipped: nothing that we ask for or export comes near."""

LARGEST_BACKLOG = 1 << 20
"""Bytes. A bus that leaves more of ours unread is given up."""

_READS_A_TURN = 32  # so that a flood of messages leaves the loop to others in between
_MOST_FDS = 16
_LONGEST_LINE = 1024
_CHUNK = 65536


class Connection:
    """A connection that is authenticated and speaks; `open_connection` makes one.

    `on_message(message)` is called for each message; the callee owns its descriptors.
    `on_lost(reason)` is called once, when the other side or an error ended the connection,
    and not after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[codec.Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._socket = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._expected = codec.HEADER
        self._fds: list[int] = []
        self._skip = 0
        self._outgoing = bytearray()
        self._open = True
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        """End the connection and close the socket now."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._drop_fds()

    def send(self, data: bytes) -> None:
        """Send, or queue while the bus does not read. Never blocks, never raises."""
        if not self._open:
            return
        idle = not self._outgoing
        self._outgoing += data
        if idle:
            self._writable()
        if len(self._outgoing) > LARGEST_BACKLOG:
            self._lose("it does not read what we send")

    def _lose(self, reason: str) -> None:
        if self._open:
            self.close()
            self._on_lost(reason)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lose(error.strerror or "it hung up")
            return
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._socket, self._writable)
        else:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            for _ in range(_READS_A_TURN):
                if self._open:
                    self._read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error.strerror or "it hung up")
        except (EOFError, ProtocolError) as error:
            self._lose(str(error) or "it hung up")

    def _read(self) -> None:
        """Read once from the socket: part of a header, of a message, or of one to skip."""
        if self._skip:
            self._skip -= len(self._receive(min(self._skip, _CHUNK)))
            self._drop_fds()
            return
        self._incoming += self._receive(min(self._expected - len(self._incoming), _CHUNK))
        if len(self._incoming) < self._expected:
            return
        if self._expected == codec.HEADER:
            self._start_message(codec.length(self._incoming))
        else:
            self._deliver()

    def _start_message(self, length: int) -> None:
        if length == codec.HEADER:
            raise ProtocolError("the bus sent a message without header fields")
        if length <= LARGEST_MESSAGE:
            self._expected = length
            return
        _log.warning("skipped a D-Bus message of %d bytes", length)
        self._skip = length - codec.HEADER
        self._incoming.clear()
        self._drop_fds()

    def _deliver(self) -> None:
        data, fds = self._incoming, tuple(self._fds)
        self._incoming = bytearray()
        self._expected = codec.HEADER
        self._fds.clear()
        try:
            message = codec.decode(data, fds)
        except ProtocolError as error:
            close_all(fds)
            _log.debug("%s", error)
            return
        self._on_message(message)

    def _receive(self, size: int) -> bytes:
        room = socket.CMSG_SPACE(_MOST_FDS * array.array("i").itemsize)
        # Not socket.recv_fds: it loses its flags, and the descriptors would be inherited.
        data, ancillary, _, _ = self._socket.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            raise EOFError
        return data

    def _drop_fds(self) -> None:
        close_all(self._fds)
        self._fds.clear()


async def open_connection(
    path: str, on_message: Callable[[codec.Message], None], on_lost: Callable[[str], None]
) -> Connection:
    """Connect and authenticate as our own uid. Raises OSError, EOFError or ProtocolError.

    The caller sets the deadline; when cancelled, the socket is closed.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, path)
        uid = str(os.getuid()).encode().hex()
        await _command(sock, f"\0AUTH EXTERNAL {uid}", "OK")
        await _command(sock, "NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD")
        await loop.sock_sendall(sock, b"BEGIN\r\n")
    except BaseException:
        sock.close()
        raise
    return Connection(sock, on_message, on_lost)


async def _command(sock: socket.socket, line: str, expected: str) -> None:
    """Send one line of the authentication protocol and read its answer.

    End-of-file raises: a reader that only waits for the line's end spins for ever here.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, line.encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        data = await loop.sock_recv(sock, _LONGEST_LINE)
        if not data:
            raise EOFError("it hung up during authentication")
        answer += data
        if len(answer) > _LONGEST_LINE:
            raise ProtocolError("it does not speak D-Bus")
    if answer.split()[:1] != [expected.encode()]:
        raise ProtocolError("it does not let us in")


def close_all(fds: tuple[int, ...] | list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
