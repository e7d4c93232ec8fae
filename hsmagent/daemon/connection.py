"""One connection: frames in, replies out in order; a `Conversation` gives the replies.

It answers one frame at a time, so replies keep the order of the requests, and processes take turns
(`turns`), so that none can crowd out the others; what waits (a signature, a person) waits alone.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from hsmagent import frame
from hsmagent.daemon.turns import Turn
from hsmagent.errors import ProtocolError
from hsmagent.tasks import Errand

log = logging.getLogger(__name__)

# A peer is hung up on rather than left without a reply.
FAULT = "a request failed in a way it should not"


Answer = bytes | Coroutine[Any, Any, bytes]
"""A reply; or the work that gives one and may wait, run as a `tasks.Errand`."""


class Conversation(Protocol):
    """What answers the frames of one connection."""

    def answer(self, body: bytearray) -> Answer:
        """Return the reply, or the work that gives it. Raises nothing that a peer can provoke."""

    def end(self) -> None:
        """Release what the conversation held; the connection is gone."""


Send = Callable[[bytes], None]
"""Sends a frame that is no reply, at any time; after the peer has gone it does nothing."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a connection tells: it is over, its peer breaks the rules, a process's frame waits."""

    gone: Callable[["Connection"], None]
    complain: Callable[["Connection", ProtocolError], None]
    take: Callable[[int, Turn], None]


class Connection:
    """Frames of one connection: read, answered one at a time, written.

    The loop tells when the socket can be read and written, and the rest is done here: a login is a
    connection of its own, and a transport of asyncio takes a third of its time to begin and to end.

    begin: begins the conversation. process: who connected. buffer: what is received goes there, and
    is wiped before the next turn of the loop.
    """

    _receive: Callable[[memoryview], int]  # returns how much came; may raise ProtocolError

    def __init__(
        self,
        sock: socket.socket,
        begin: Callable[[Send], Conversation],
        *,
        process: int,
        ends: Ends,
        buffer: memoryview,
        limit: int,
    ) -> None:
        self._socket = sock
        self._number = sock.fileno()  # the loop would make a text of a socket to look for it
        self.process = process
        self._ends = ends
        self._buffer = buffer
        self._receive = sock.recv_into
        self._full = limit + frame.HEADER
        self._loop = asyncio.get_running_loop()
        self._reader = frame.Reader(limit)
        self._unsent = bytearray()
        self._reads = True
        self._has_left = self._closed = False
        self._errand: Errand[bytes] | None = None
        self._in_row = False
        self.conversation = begin(self.send)
        sock.settimeout(0)
        self._loop.add_reader(self._number, self._readable)

    def end(self) -> asyncio.Task[bytes] | None:
        """Hang up; nobody waits for what was asked. Return the task that still unwinds, if any."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._number)
            if self._unsent:
                self._loop.remove_writer(self._number)
            self._socket.close()
            if self._errand is not None:
                self._errand.cancel()
            self._ends.gone(self)
        return None if self._errand is None else self._errand.task

    # -- reading -----------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            received = self._receive(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            received = 0
        except ProtocolError as error:
            self._break_off(error)
            return
        if not received:
            self._leave()
            return
        self._reader.move(self._buffer[:received])
        self._go_on()

    def _break_off(self, error: ProtocolError) -> None:
        self._ends.complain(self, error)
        self.end()

    def _leave(self) -> None:
        """Take in that the peer asks nothing more; what is written for it still goes out."""
        if self._unsent:
            self._has_left = True
            self._loop.remove_reader(self._number)
        else:
            self.end()

    def _read_on(self, *, on: bool) -> None:
        if self._has_left:
            return
        self._reads = on
        if on:
            self._loop.add_reader(self._number, self._readable)
        else:
            self._loop.remove_reader(self._number)

    # -- answering ---------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Have one frame answered when it is our turn, if nothing is in its way.

        Who does not read its replies gets no more of them.
        """
        if self._reader.pending and self._errand is None and not self._unsent and not self._in_row:
            self._in_row = True
            self._ends.take(self.process, self._our_turn)
        if not self._closed:
            # Else a whole frame is left over: it sends faster than it can be served, or it reads.
            on = self._reader.pending < self._full
            if on is not self._reads:
                self._read_on(on=on)

    def _our_turn(self) -> None:
        self._in_row = False
        if self._closed or self._unsent:
            return
        try:
            body = self._reader.next_frame()
        except ProtocolError as error:
            self._break_off(error)
            return
        if body is None:
            return
        try:
            answer = self.conversation.answer(body)
        except Exception:
            log.exception(FAULT)
            self.end()
            return
        if isinstance(answer, bytes):
            self._answered(answer, None)
        else:
            self._errand = Errand(answer, self._answered)
            self._errand.go_on()

    def _answered(self, reply: bytes | None, error: BaseException | None) -> None:
        self._errand = None
        if reply is None:
            log.error(FAULT, exc_info=error)
            self.end()
        elif not self._closed:
            self._write(frame.encode(reply))
            self._go_on()

    # -- writing -----------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        """Send a frame that is no reply."""
        if not self._closed:
            self._write(frame.encode(body))

    def _write(self, reply: bytes) -> None:
        sent = 0 if self._unsent else self._send(reply)
        if sent < len(reply) and not self._closed:
            if not self._unsent:
                self._loop.add_writer(self._number, self._writable)
            self._unsent += memoryview(reply)[sent:]

    def _send(self, data: bytes | bytearray) -> int:
        """Send what can be sent now; return how much."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.end()
            return 0

    def _writable(self) -> None:
        del self._unsent[: self._send(self._unsent)]
        if self._unsent or self._closed:
            return
        self._loop.remove_writer(self._number)
        if self._has_left:
            self.end()
        else:
            self._go_on()
