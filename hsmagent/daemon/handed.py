"""Connections over which another program's socket is handed to us.

Its descriptor comes with the first bytes (SCM_RIGHTS, unix(7)). Nothing is ever read from it: the
kernel tells who made it, and when that program hangs up. Then nobody is left to answer, and the
connection ends, with the questions that were asked for it.
"""

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable

from hsmagent.control.face import FaceConversation
from hsmagent.daemon.connection import Connection, Conversation, Ends, Send
from hsmagent.errors import ProtocolError
from hsmagent.who.peer import credentials_of, peer_of

ONE_DESCRIPTOR = socket.CMSG_LEN(4)  # CMSG_SPACE has room for a second one


class HangUps:
    """Tells when programs hang up whose sockets somebody else reads. Make it in a running loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], object]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll, self._look)

    def watch(self, sock: socket.socket, hung_up: Callable[[], object]) -> None:
        """Call back, once, when the other end of this socket is closed or shut down."""
        self._epoll.register(sock, select.EPOLLRDHUP | select.EPOLLONESHOT)
        self._watched[sock.fileno()] = hung_up

    def forget(self, sock: socket.socket) -> None:
        """Watch no longer. To close the socket would not do: other processes have it open, too."""
        if not self._epoll.closed:
            self._epoll.unregister(sock)
        del self._watched[sock.fileno()]

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll)
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            self._watched[descriptor]()


class HandedConnection(Connection):
    """A connection of the face socket. hang_ups: who watches the programs' sockets."""

    def __init__(
        self,
        hang_ups: HangUps,
        sock: socket.socket,
        begin: Callable[[Send], Conversation],
        *,
        process: int,
        ends: Ends,
        buffer: memoryview,
        limit: int,
    ) -> None:
        super().__init__(sock, begin, process=process, ends=ends, buffer=buffer, limit=limit)
        self._hang_ups = hang_ups
        self._receive = self._receive_first
        self._client: socket.socket | None = None

    def _receive_first(self, buffer: memoryview) -> int:
        """Receive; with the first bytes, the program's socket. Raises ProtocolError."""
        size, ancillary, _, _ = self._socket.recvmsg_into(
            [buffer], ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC
        )
        self._receive = self._socket.recv_into
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take_client(int.from_bytes(data, sys.byteorder))
        return size

    def _take_client(self, descriptor: int) -> None:
        client = _ours(descriptor)
        self._hang_ups.watch(client, self.end)
        self._client = client
        if isinstance(self.conversation, FaceConversation):
            self.conversation.handed(peer_of(client))

    def end(self) -> "asyncio.Task[bytes] | None":
        """Let go of the program's socket, too."""
        if self._client is not None:
            self._hang_ups.forget(self._client)
            self._client.close()
            self._client = None
        return super().end()


def _ours(descriptor: int) -> socket.socket:
    """Return the socket of a program of our own user. Raises ProtocolError, and closes others."""
    try:
        client = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise ProtocolError("what it handed over is no socket") from None
    try:
        uid = credentials_of(client)[1]
    except OSError:
        uid = -1
    if uid != os.getuid():
        client.close()
        raise ProtocolError("it handed over what is no connection of a program of this user")
    return client
