"""A prompter that is a program: started, read without copies of the PIN, and always ended."""

import asyncio
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from hsmagent.errors import Unavailable

_PATIENCE = 2.0  # seconds from SIGTERM to SIGKILL


class Child:
    """A running program whose standard input and output are one socket.

    A socket, since asyncio's pipes keep what they read in buffers that nobody can wipe.
    """

    def __init__(self, process: Process, sock: socket.socket) -> None:
        self._process = process
        self._socket = sock

    async def read_into(self, buffer: memoryview) -> int:
        """Read what there is; 0 once the program has ended or closed its output."""
        try:
            return await asyncio.get_running_loop().sock_recv_into(self._socket, buffer)
        except ConnectionError:
            return 0

    async def write(self, data: bytes | bytearray) -> None:
        """Write all of it; a program that has ended shows when it is read from."""
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
        """Signal the program's group, unless the program has ended: its number is free then."""
        if self._process.returncode is not None:
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        return True


@asynccontextmanager
async def running(
    command: Sequence[str], environment: Mapping[str, str], stderr: int | None = DEVNULL
) -> AsyncIterator[Child]:
    """Run a program for the length of the block. Raises Unavailable when it does not start.

    stderr: as for `subprocess`; None is ours.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=stderr,
                env=environment,
                start_new_session=True,  # the window may be that of a program which a script runs
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} does not start: {error.strerror}") from error
        theirs.close()
        child = Child(process, ours)
        try:
            yield child
        finally:
            await child.end()
