"""Sockets: who may connect, frames in, replies out in order; a `Conversation` gives the replies.

One asyncio protocol serves all of our sockets. A connection answers one frame at a time, so replies
keep the order of the requests, and processes take turns (`turns`), so that none can crowd out the
others; what waits (a signature, a person) waits alone.
"""

import asyncio
import logging
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from hsmagent import frame
from hsmagent.daemon.listening import BACKLOG
from hsmagent.daemon.turns import Answer, Turns
from hsmagent.errors import ProtocolError
from hsmagent.limit import PeerLog
from hsmagent.who.peer import credentials_of

log = logging.getLogger(__name__)

RECEIVE = 65536
# More would serve nobody: each program holds one or two connections.
MAX_CONNECTIONS = 1024
# The part of them that one process may have: a client that leaks them, or an ssh whose forwarded
# channels a hostile host opens, must not keep the others out.
SHARE = 4
# Of the files that we may have open: one part each for the connections of the ssh, the control and
# the mail socket, for the ssh socket's to an upstream agent, two for the face socket (each of its
# connections brings a program's own), and one for everything else.
PARTS = 7

# From 3.13 on asyncio would remove the socket's file; one from systemd is not ours to remove.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

# A peer is hung up on rather than left without a reply.
FAULT = "a request failed in a way it should not"


class Conversation(Protocol):
    """What answers the frames of one connection."""

    def respond_now(self, body: bytearray) -> bytes | None:
        """Return the reply, or None when `respond` must be awaited for it."""
        ...

    async def respond(self, body: bytearray) -> bytes:
        """Return the reply; may wait. Raises nothing that a peer can provoke."""
        ...

    def end(self) -> None:
        """Release what the conversation held; the connection is gone."""
        ...


Send = Callable[[bytes], None]
"""Sends a frame that is no reply, at any time; after the peer has gone it does nothing."""

Opener = Callable[[socket.socket, Send], Conversation]
"""Begins a conversation on an accepted socket."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a connection tells its server: it begins, it is over, its peer is odd, a frame waits."""

    admit: Callable[["Connection", socket.socket], Conversation | None]
    gone: Callable[["Connection"], None]
    complain: Callable[["Connection", ProtocolError], None]
    take: Callable[["Connection", Answer], None]


class Server:
    """One listening socket and its connections, for the uids that it serves.

    turns: shared by the servers of one loop. share: see SHARE. connection: what makes one.
    """

    def __init__(
        self,
        listening: socket.socket,
        opener: Opener,
        *,
        uids: Collection[int],
        turns: Turns,
        limit: int = frame.SSH_MAX_FRAME,
        share: int = SHARE,
        connection: "Callable[[Ends, bytearray, int], Connection] | None" = None,
    ) -> None:
        self._listening = listening
        self._uids = uids
        self._opener = opener
        self._turns = turns
        self._limit = limit
        self._most = room_for_connections()
        self._most_each = self._most // share
        self._new_connection = connection or Connection
        self._ends = Ends(self._admit, self._forget, self._complain, self._take)
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, Conversation] = {}
        self._processes: dict[Connection, int] = {}
        self._held = Counter[int]()  # connections by process
        self._log = PeerLog(log, time.monotonic)
        self._told: set[int] = set()  # processes whose refusal is in the log
        # Filled and emptied within one turn of the loop, so one buffer serves every connection.
        self._buffer = bytearray(RECEIVE)

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            self._connection, sock=self._listening, backlog=BACKLOG, **_KEEP_FILE
        )

    async def close(self) -> None:
        """Stop accepting and end every connection."""
        if self._server is not None:
            self._server.close()
        tasks = [task for c in tuple(self._connections) if (task := c.end()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connection(self) -> "Connection":
        return self._new_connection(self._ends, self._buffer, self._limit)

    def _admit(self, connection: "Connection", sock: socket.socket) -> Conversation | None:
        pid, uid = credentials_of(sock)
        if uid not in self._uids:
            self._log.warning(pid, "refused a connection from uid %d", uid)
            return None
        if self._held[pid] >= self._most_each:
            self._tell(pid, f"it has {self._most_each} open")
            return None
        if len(self._connections) >= self._most:
            self._tell(pid, f"{self._most} are open")
            return None
        conversation = self._connections[connection] = self._opener(sock, connection.send)
        self._processes[connection] = pid
        self._held[pid] += 1
        return conversation

    def _tell(self, pid: int, why: str) -> None:
        """Say why a process is refused; once, for it may try without end."""
        if pid in self._told:
            return
        if len(self._told) >= MAX_CONNECTIONS:
            self._told.clear()
        self._told.add(pid)
        log.warning("refused connections of process %d: %s", pid, why)

    def _complain(self, connection: "Connection", error: ProtocolError) -> None:
        self._log.warning(self._processes.get(connection, 0), "hung up on a client: %s", error)

    def _take(self, connection: "Connection", answer: Answer) -> None:
        self._turns.take(self._processes.get(connection, 0), answer)

    def _forget(self, connection: "Connection") -> None:
        conversation = self._connections.pop(connection, None)
        if conversation is None:
            return
        pid = self._processes.pop(connection)
        self._held[pid] -= 1
        if not self._held[pid]:
            del self._held[pid]
            self._told.discard(pid)
        conversation.end()


class Connection(asyncio.BufferedProtocol):
    """Frames of one connection: read, answered one at a time, written.

    BufferedProtocol, since its buffer can be wiped: a frame may hold a PIN.
    """

    def __init__(self, ends: Ends, buffer: bytearray, limit: int) -> None:
        self._ends = ends
        self._buffer = buffer
        self._limit = limit
        self._reader = frame.Reader(limit)
        self._writable = True
        self._task: asyncio.Task[None] | None = None
        self._in_row = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the peer, or hang up on it."""
        if not isinstance(transport, asyncio.Transport):  # pragma: no cover - asyncio's contract
            raise TypeError("a stream transport is needed")
        self._transport = transport
        conversation = self._ends.admit(self, transport.get_extra_info("socket"))
        if conversation is None:
            transport.abort()
            return
        self._conversation = conversation

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that arrived, and answer what is complete."""
        view = memoryview(self._buffer)[:nbytes]
        self._reader.feed(view)
        frame.wipe(view)
        self._go_on()

    def _go_on(self) -> None:
        """Have one frame answered when it is our turn, if nothing is in its way."""
        if self._reader.pending and self._task is None and self._writable and not self._in_row:
            self._in_row = True
            self._ends.take(self, self._our_turn)
        # A whole frame is left over: the peer sends faster than it can be served, or than it reads.
        if self._reader.pending >= self._limit + frame.HEADER:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _our_turn(self) -> None:
        self._in_row = False
        if self._writable and self._answer_next():
            self._go_on()

    def _answer_next(self) -> bool:
        """Answer a frame if a whole one is there; say whether the next may follow at once."""
        if self._transport.is_closing():
            return False
        try:
            body = self._reader.next_frame()
        except ProtocolError as error:
            self._ends.complain(self, error)
            self._transport.abort()
            return False
        if body is None:
            return False
        loop = asyncio.get_running_loop()
        try:
            reply = self._conversation.respond_now(body)
        except Exception:
            log.exception(FAULT)
            self._transport.abort()
            return False
        if reply is None:
            self._task = loop.create_task(self._answer(body))
            return False
        self._transport.write(frame.encode(reply))
        return True

    async def _answer(self, body: bytearray) -> None:
        try:
            reply = await self._conversation.respond(body)
        except Exception:
            log.exception(FAULT)
            self._transport.abort()
        else:
            self._transport.write(frame.encode(reply))
        finally:
            self._task = None
        self._go_on()

    def send(self, body: bytes) -> None:
        """Send a frame that is no reply."""
        if not self._transport.is_closing():
            self._transport.write(frame.encode(body))

    def pause_writing(self) -> None:
        """Stop answering a peer that does not read its replies."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on: the peer reads again."""
        self._writable = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the peer; nobody waits for what it asked."""
        self._ends.gone(self)
        if self._task is not None:
            self._task.cancel()

    def end(self) -> asyncio.Task[None] | None:
        """Hang up; return the task that still unwinds, if any."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task


def room_for_connections() -> int:
    """Return how many connections a socket may have; raise the limit of open files for them.

    Without files left, nobody could be asked for a PIN, and asyncio would log tracebacks without
    end.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PARTS * MAX_CONNECTIONS
    if 0 <= soft < wanted:  # RLIM_INFINITY is negative
        soft = wanted if hard < 0 else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft < 0 else min(MAX_CONNECTIONS, soft // PARTS)
