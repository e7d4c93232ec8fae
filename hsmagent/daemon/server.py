"""Sockets: who may connect, and how many connections there may be."""

import asyncio
import logging
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial

from hsmagent import frame
from hsmagent.daemon.connection import FAULT, Connection, Conversation, Ends, Send
from hsmagent.daemon.listening import BACKLOG
from hsmagent.daemon.turns import Turns
from hsmagent.errors import ProtocolError
from hsmagent.limit import PeerLog
from hsmagent.who.peer import credentials_of

log = logging.getLogger(__name__)

RECEIVE = 65536
# More connections would serve nobody: each program holds one or two.
MAX_CONNECTIONS = 1024
# One process may have this part of the connections, a quarter: a client that leaks them, or an ssh
# whose forwarded channels a hostile host opens, must not keep the others out.
SHARE = 4
# Of the files that we may have open: one part each for the connections of the ssh, the control and
# the mail socket, for the ssh socket's to an upstream agent, two for the face socket (each of its
# connections brings a program's own), and one for everything else.
PARTS = 7

# How long nobody is let in after no more files could be opened.
ACCEPT_AGAIN = 1.0  # seconds

Opener = Callable[[socket.socket, Send], Conversation]
"""Begins a conversation on an accepted socket."""


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
        connection: Callable[..., Connection] = Connection,
    ) -> None:
        self._listening = listening
        self._uids = uids
        self._opener = opener
        self._limit = limit
        self._most = room_for_connections()
        self._most_each = self._most // share
        self._new_connection = connection
        self._turns = turns
        self._ends = Ends(self._forget, self._complain, turns.take)
        self._accepts = False
        self._connections: dict[Connection, Conversation] = {}
        self._held = Counter[int]()  # connections by process
        self._log = PeerLog(log, time.monotonic)
        self._told: set[int] = set()  # processes whose refusal is in the log
        # Filled and emptied within one turn of the loop, so one buffer serves every connection.
        self._buffer = memoryview(bytearray(RECEIVE))

    async def start(self) -> None:
        """Accept connections from now on."""
        self._loop = asyncio.get_running_loop()
        self._listening.settimeout(0)
        self._accepts = True
        self._listen()

    def _listen(self) -> None:
        if self._accepts:
            self._loop.add_reader(self._listening, self._accept)

    async def close(self) -> None:
        """Stop accepting and end every connection."""
        if self._accepts:
            self._accepts = False
            self._loop.remove_reader(self._listening)
            self._listening.close()
        tasks = [task for c in tuple(self._connections) if (task := c.end()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        """Let in all who wait, or clients that are in already and ask again would go first."""
        for _ in range(BACKLOG):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("cannot accept a connection: %s", error)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(ACCEPT_AGAIN, self._listen)
                return
            try:
                admitted = self._admit(sock)
            except Exception:
                log.exception(FAULT)
                admitted = False
            if not admitted:
                sock.close()

    def _admit(self, sock: socket.socket) -> bool:
        pid, uid = credentials_of(sock)
        if uid not in self._uids:
            self._log.warning(pid, "refused a connection from uid %d", uid)
            return False
        if self._held[pid] >= self._most_each:
            self._tell(pid, f"it has {self._most_each} open")
            return False
        if len(self._connections) >= self._most:
            self._tell(pid, f"{self._most} are open")
            return False
        connection = self._new_connection(
            sock,
            partial(self._opener, sock),
            process=pid,
            ends=self._ends,
            buffer=self._buffer,
            limit=self._limit,
        )
        self._connections[connection] = connection.conversation
        self._held[pid] += 1
        self._turns.connections += 1
        return True

    def _tell(self, pid: int, why: str) -> None:
        """Say why a process is refused; once, for it may try without end."""
        if pid in self._told:
            return
        if len(self._told) >= MAX_CONNECTIONS:
            self._told.clear()
        self._told.add(pid)
        log.warning("refused connections of process %d: %s", pid, why)

    def _complain(self, connection: Connection, error: ProtocolError) -> None:
        self._log.warning(connection.process, "hung up on a client: %s", error)

    def _forget(self, connection: Connection) -> None:
        conversation = self._connections.pop(connection, None)
        if conversation is None:
            return
        self._turns.connections -= 1
        pid = connection.process
        self._held[pid] -= 1
        if not self._held[pid]:
            del self._held[pid]
            self._told.discard(pid)
        conversation.end()


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
