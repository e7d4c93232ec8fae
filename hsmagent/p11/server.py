"""The socket that programs connect to: who may connect, frames in, replies out.

A program has a few threads. Each waits for its own reply, which it knows by the frame's code, so
that replies may come in any order. What is answered from memory is answered at once, one call in
each turn of the loop, so that no program can crowd out the others. What waits for the daemon is a
task; a program that has MOST_WAITING of them is not read meanwhile.
"""

import asyncio
import logging
import os
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe
from hsmagent.limit import PeerLog
from hsmagent.p11 import rpc
from hsmagent.p11.daemon import Program, Watch
from hsmagent.p11.face import Face
from hsmagent.p11.objects import tokens_of
from hsmagent.p11.slots import Slots
from hsmagent.tasks import Tasks
from hsmagent.who.peer import credentials_of
from hsmagent.worker.spec import CKR_GENERAL_ERROR

log = logging.getLogger(__name__)

RECEIVE = 65536
BACKLOG = 128
MOST_WAITING = 8  # calls of one program that wait for the daemon
MOST_PROGRAMS = 512
MOST_EACH = 128  # connections of one process, which makes one for each time it loads our module
FILES = MOST_PROGRAMS * 4

# From 3.13 on asyncio would remove the socket's file; one from systemd is not ours to remove.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Server:
    """Serves programs at a listening socket.

    daemon: the path of the daemon's face socket. enabled: whether programs are to be served.
    """

    def __init__(self, listening: socket.socket, daemon: str, enabled: Callable[[], bool]) -> None:
        self._listening = listening
        self._daemon = daemon
        self._slots = Slots()
        self._watch = Watch(daemon, self._show, enabled)
        self._connections: dict[Connection, int] = {}
        self._held = Counter[int]()
        self._log = PeerLog(log, time.monotonic)
        self._buffer = bytearray(RECEIVE)

    def _show(self, answer: dict[str, Any]) -> None:
        self._slots.show(tokens_of(answer))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop."""
        _room_for_files()
        watching = asyncio.create_task(self._watch.run())
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(self._admit, self._forget, self._buffer),
            sock=self._listening,
            backlog=BACKLOG,
            **_KEEP_FILE,
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()  # it never ends by itself, but by a fault of ours
        finally:
            server.close()
            for connection in tuple(self._connections):
                connection.abort()
            for task in (watching, stopping):
                task.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)

    def _admit(
        self, connection: "Connection", sock: socket.socket
    ) -> tuple[Callable[[bytearray], bytes | Awaitable[bytes]], Program] | None:
        pid, uid = credentials_of(sock)
        if uid != os.getuid():
            self._log.warning(pid, "refused a connection from uid %d", uid)
            return None
        if len(self._connections) >= MOST_PROGRAMS or self._held[pid] >= MOST_EACH:
            self._log.warning(pid, "refused a connection of process %d: too many are open", pid)
            return None
        self._connections[connection] = pid
        self._held[pid] += 1
        program = Program(self._daemon, sock)
        watch = self._watch
        face = Face(self._slots, program.perform, program.missed, watch.needed, watch.looked)
        return face.answer, program

    def _forget(self, connection: "Connection", error: ProtocolError | None) -> None:
        pid = self._connections.pop(connection, None)
        if pid is None:
            return
        if error is not None:
            self._log.warning(pid, "hung up on process %d: %s", pid, error)
        self._held -= Counter((pid,))


class Connection(asyncio.BufferedProtocol):
    """One program's connection. BufferedProtocol, since its buffer can be wiped: a PIN may come."""

    def __init__(
        self,
        admit: Callable[["Connection", socket.socket], Any],
        forget: Callable[["Connection", ProtocolError | None], None],
        buffer: bytearray,
    ) -> None:
        self._admit = admit
        self._forget = forget
        self._buffer = buffer
        self._stream = rpc.Stream()
        self._tasks = Tasks()
        self._writable = True
        self._turn: asyncio.Handle | None = None
        self._error: ProtocolError | None = None
        self._program: Program | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the program, or hang up on it."""
        if not isinstance(transport, asyncio.Transport):  # pragma: no cover - asyncio's contract
            raise TypeError("a stream transport is needed")
        self._transport = transport
        admitted = self._admit(self, transport.get_extra_info("socket"))
        if admitted is None:
            transport.abort()
        else:
            self._answer, self._program = admitted

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that arrived, and answer what is complete."""
        view = memoryview(self._buffer)[:nbytes]
        self._stream.feed(view)
        wipe(view)
        self._go_on()

    def _go_on(self) -> None:
        """Answer one call, if one is there and nothing is in its way."""
        if self._turn is None and self._writable and len(self._tasks) < MOST_WAITING:
            self._answer_next()
        # Whole calls are left over: the program sends faster than it is served, or than it reads.
        waits = self._turn is not None or not self._writable or len(self._tasks) >= MOST_WAITING
        if waits or self._stream.pending > rpc.MOST_FRAME:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _answer_next(self) -> None:
        if self._transport.is_closing():
            return
        version = self._stream.next_version()
        if version is not None:
            self._transport.write(bytes((version,)))
        try:
            frame = self._stream.next_frame()
        except ProtocolError as error:
            self._error = error
            self._transport.abort()
            return
        if frame is None:
            return
        try:
            reply = self._answer(frame.body)
        except Exception:
            log.exception("a call failed in a way it should not")
            reply = rpc.error(CKR_GENERAL_ERROR)
        finally:
            wipe(frame.body)
        if isinstance(reply, bytes):
            self._transport.write(rpc.frame(frame.code, reply))
        else:
            # This callback comes after the one by which the task leaves `Tasks`.
            task = self._tasks.start(self._answer_later(frame.code, reply))
            task.add_done_callback(lambda _: self._go_on())
        if self._stream.pending:
            self._turn = asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._go_on()

    async def _answer_later(self, code: int, reply: Awaitable[bytes]) -> None:
        try:
            body = await reply
        except Exception:
            log.exception("a call failed in a way it should not")
            body = rpc.error(CKR_GENERAL_ERROR)
        self._transport.write(rpc.frame(code, body))

    def pause_writing(self) -> None:
        """Stop answering a program that does not read its replies."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on: the program reads again."""
        self._writable = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the program; nobody waits for what it asked."""
        self._tasks.cancel()
        if self._program is not None:
            self._program.end()
        self._forget(self, self._error)

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()


def _room_for_files() -> None:
    """Raise the limit of open files: a program has its own socket, and some to the daemon."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FILES:  # RLIM_INFINITY is negative
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard < 0 else min(FILES, hard), hard))
