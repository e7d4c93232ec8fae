"""A prompter that is a program: it is started, read without copying the PIN, and always ended."""

import asyncio
import os
import re
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from hsmagent.errors import Unavailable

_PATIENCE = 2.0  # seconds from SIGTERM to SIGKILL
_PIPE = 1 << 16  # bytes that a pipe holds
_AT_ONCE = 0.5  # seconds in which no person can have seen a window and declined
_NO_DISPLAY = re.compile(rb"\b(open|connect)\b.{0,40}\b(display|wayland|x server)", re.IGNORECASE)


class Child:
    """A running program whose standard input and output are one socket.

    They are a socket, since asyncio's pipes keep what they read in buffers that cannot be wiped.
    complaints: the descriptor from which its standard error can be read.
    """

    def __init__(self, process: Process, sock: socket.socket, complaints: int) -> None:
        self._process = process
        self._socket = sock
        self._complaints = complaints
        self._asked = asyncio.get_running_loop().time()

    def asked(self) -> None:
        """Note that the question is put now; without this, the program's start counts."""
        self._complaint()
        self._asked = asyncio.get_running_loop().time()

    @property
    def fell_over(self) -> bool:
        """Whether a "no" was nobody's: it came with a complaint, at once or about the display."""
        quick = asyncio.get_running_loop().time() - self._asked < _AT_ONCE
        complaint = self._complaint()
        return bool(complaint) and (quick or _NO_DISPLAY.search(complaint) is not None)

    def _complaint(self) -> bytes:
        """Return what the program wrote to its standard error since the last call: untrusted."""
        with suppress(BlockingIOError):
            return os.read(self._complaints, _PIPE)
        return b""

    async def read_into(self, buffer: memoryview) -> int:
        """Read what has come, and return its length; 0: the program has closed its output."""
        try:
            return await asyncio.get_running_loop().sock_recv_into(self._socket, buffer)
        except ConnectionError:
            return 0

    async def write(self, data: bytes | bytearray) -> None:
        """Write all of it. Raises nothing when the program has ended: `read_into` tells that."""
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def exit_status(self) -> int:
        """Wait for the program's end; a negative status is a signal's number."""
        return await self._process.wait()

    async def end(self) -> None:
        """End the program and what it started, politely at first."""
        self._socket.close()
        try:
            if self._signal(signal.SIGTERM):
                async with asyncio.timeout(_PATIENCE):
                    await self._process.wait()
        except TimeoutError:
            pass
        finally:
            if self._signal(signal.SIGKILL):
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> bool:
        """Signal the program's group, unless it has ended: then its id may be another's."""
        if self._process.returncode is not None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        return True


@asynccontextmanager
async def running(
    command: Sequence[str], environment: Mapping[str, str], *, our_stderr: bool = False
) -> AsyncIterator[Child]:
    """Run a program for the length of the block. Raises Unavailable when it does not start.

    our_stderr: its standard error is ours, so that it is not read.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, _complaints() as (complaints, stderr):
        ours.settimeout(0)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=None if our_stderr else stderr,
                env=environment,
                start_new_session=True,  # the window may be that of a program which a script runs
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} does not start: {error.strerror}") from error
        theirs.close()
        child = Child(process, ours, complaints)
        try:
            yield child
        finally:
            await child.end()


@contextmanager
def _complaints() -> Iterator[tuple[int, int]]:
    """Make a pipe for standard error. What it has no room for is lost: nothing waits for us."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
