"""The daemon's end of one worker process: talk to it, kill it when it is late.

What runs in the process is a `process.Program`, of which this module uses the name alone.

The worker answers in order, so requests need no numbers: the oldest request is the one being worked
on, and its deadline runs from the moment when it became the oldest. A worker that misses a
deadline, ends, or says something that does not parse is killed for good; `pool` starts another.
"""

import asyncio
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from hsmagent.errors import ProtocolError, WorkerDied
from hsmagent.frame import Reader, wipe
from hsmagent.model import PRINTABLE_LIMIT, printable
from hsmagent.tasks import Reply
from hsmagent.worker import codec
from hsmagent.worker.messages import Failed, Request
from hsmagent.worker.process import Program, spawn

if TYPE_CHECKING:
    from hsmagent.worker.orders import Order

log = logging.getLogger(__name__)

_RECEIVE = 1 << 16
# How many lines a module may write to stderr before a worker's further ones are dropped.
_STDERR_LINES = 200


class Link:
    """One worker. Make it in a running loop; it is spawned at once.

    on_room: called after replies were taken in, when more requests could be sent.
    on_lost: called once, with what happened in plain words, when the worker has ended.
    ready: the worker's first word: Done when the module is loaded, Failed when it cannot be.
    exited: done when the process is gone.
    """

    def __init__(
        self,
        program: Program,
        *,
        start_seconds: float,
        on_room: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._name = program.name
        self._loop = asyncio.get_running_loop()
        self._on_room = on_room
        self._on_lost = on_lost
        self._waiting: deque[tuple[float, Reply[Any]]] = deque()
        self._since = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._reader = Reader(codec.MAX_REPLY)
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._unsent = bytearray()
        self._stderr_lines = _STDERR_LINES
        self._stderr_rest = ""
        self._said: list[str] = []
        self._alive = True
        self.exited: asyncio.Future[None] = self._loop.create_future()
        spawned = spawn(program)
        self._socket, self._process = spawned.socket, spawned.process
        self._watch(self._process)
        self._socket.settimeout(0)
        self._loop.add_reader(self._socket, self._readable)
        self.ready = Reply[Any](loop=self._loop)
        self.ready.add_done_callback(self._log_what_it_said)
        self._expect(start_seconds, self.ready)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        if process.stderr is not None:
            os.set_blocking(process.stderr.fileno(), False)
            self._loop.add_reader(process.stderr, self._drain_stderr)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def depth(self) -> int:
        """How many requests are with the worker."""
        return len(self._waiting)

    def request(self, message: "Request | Order", seconds: float) -> Reply[Any]:
        """Send a request. The reply comes within `seconds` of becoming the oldest request.

        Or it raises WorkerDied. The caller wipes a PIN in `message`.
        """
        reply = Reply[Any](loop=self._loop)
        self.submit(message, seconds, reply)
        return reply

    def submit(self, message: "Request | Order", seconds: float, reply: Reply[Any]) -> None:
        """Send a request, as `request` does, whose answer goes into `reply`."""
        if not self._alive:
            reply.set_exception(WorkerDied(f"{self._name} has ended"))
            return
        self._expect(seconds, reply)
        self._send(codec.encode(message))

    def kill(self, why: str) -> None:
        """End the worker now; every request that waits for it fails with WorkerDied and `why`."""
        if not self._alive:
            return
        self._alive = False
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        wipe(self._unsent)
        if self._process.returncode is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        while self._waiting:
            _, reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(WorkerDied(why))
                reply.exception()  # else asyncio logs that nobody has asked for it
        self._on_lost(why)

    # -- deadlines ---------------------------------------------------------------------------

    def _expect(self, seconds: float, reply: Reply[Any]) -> None:
        if not self._waiting:
            self._since = monotonic()
        self._waiting.append((seconds, reply))
        if self._timer is None or self._timer_due > self._since + seconds:
            self._arm()

    def _arm(self) -> None:
        """See to it that the timer runs out by the oldest request's deadline.

        A timer that runs out earlier stays, and `_check` sets it anew: so most requests touch none.
        """
        due = self._since + self._waiting[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._check)
        self._timer_due = due

    def _check(self) -> None:
        """Kill a worker that is late."""
        self._timer = None
        if not self._waiting:
            return
        if self._since + self._waiting[0][0] > monotonic():
            self._arm()
            return
        log.warning("%s: no answer within %g s, killed", self._name, self._waiting[0][0])
        self.kill(f"{self._name} did not answer in time and was restarted")

    # -- the socket --------------------------------------------------------------------------

    def _send(self, out: bytearray) -> None:
        if self._unsent:
            self._unsent += out
        else:
            try:
                sent = self._socket.send(out)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = len(out)  # the worker has ended; `_readable` is about to learn that
            if sent < len(out):
                self._unsent += memoryview(out)[sent:]
                self._loop.add_writer(self._socket, self._writable)
        wipe(out)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent[:sent] = bytes(sent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            received = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            received = 0
        if not received:
            self.kill(f"{self._name} crashed and was restarted")
            return
        self._reader.move(self._buffer[:received])
        settled: list[tuple[Reply[Any], Any]] = []
        try:
            self._take_replies(settled)
        except ProtocolError as error:
            log.warning("%s: %s", self._name, error)
            self.kill(f"{self._name} wrecked its worker, which was restarted")
        else:
            self._on_room()  # first, so that the worker has work while the replies are handled
        for reply, value in settled:
            if not reply.done():
                reply.settle(value)

    def _take_replies(self, settled: list[tuple[Reply[Any], Any]]) -> None:
        while self._reader.pending and (body := self._reader.next_frame()) is not None:
            if not self._waiting:
                raise ProtocolError("a reply that nobody asked for")
            value = codec.decode_reply(body)
            wipe(body)
            _, reply = self._waiting.popleft()
            if self._waiting:
                self._since = monotonic()
                self._arm()
            settled.append((reply, value))

    # -- the process -------------------------------------------------------------------------

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        status = self._process.wait()
        os.close(self._pidfd)
        if self._process.stderr is not None:
            self._drain_stderr()
            self._say([self._stderr_rest])
            self._loop.remove_reader(self._process.stderr)
            self._process.stderr.close()
        if status not in {0, -signal.SIGKILL}:
            log.warning("%s: its worker ended with status %d", self._name, status)
        self.exited.set_result(None)

    def _drain_stderr(self) -> None:
        stderr = self._process.stderr
        if stderr is None or stderr.closed:
            return
        try:
            text = os.read(stderr.fileno(), _RECEIVE).decode(errors="replace")
        except BlockingIOError:
            return
        if not text:
            self._loop.remove_reader(stderr)
        # A line may come in pieces, and a long one without an end.
        *lines, self._stderr_rest = (self._stderr_rest + text).split("\n")
        if len(self._stderr_rest) > PRINTABLE_LIMIT:
            lines.append(self._stderr_rest)
            self._stderr_rest = ""
        self._say(lines)

    def _say(self, lines: list[str]) -> None:
        for line in filter(str.strip, lines):
            self._stderr_lines -= 1
            if self._stderr_lines >= 0:
                self._said.append(printable(line))
        if self.ready.done():
            self._log_what_it_said()

    def _log_what_it_said(self, *_: object) -> None:
        """Log the lines that the worker wrote, once it has started.

        Where it says that it cannot start, its lines tell nothing more: they are for debugging.
        """
        told = not self.ready.cancelled() and self.ready.exception() is None
        failed = told and isinstance(self.ready.result(), Failed)
        for line in self._said:
            log.log(logging.DEBUG if failed else logging.INFO, "%s says: %s", self._name, line)
        self._said.clear()
