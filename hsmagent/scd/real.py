"""The real scdaemon, to which commands for other cards are passed on, started when it is needed.

One process serves all conversations, each on a connection of its own. It is ended once no
conversation needs it, unless it has shown a card by then: while it runs, it keeps other programs
from the readers.
"""

import asyncio
import os
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from hsmagent import assuan
from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe
from hsmagent.scd.errors import Code, Failed
from hsmagent.scd.stream import Stream

START = 15.0  # seconds for its greeting and the name of its socket
END = 5.0  # seconds for its end
_NONE = "no scdaemon but ours is here"

Find = Callable[[], Coroutine[Any, Any, Sequence[str]]]
"""Returns the command that runs the real scdaemon; an empty one where there is none."""


class Client(Protocol):
    """The other end of a conversation, as far as passing on needs it."""

    async def line(self) -> bytearray | None:
        """Return its next line, for the caller to wipe; None: it has gone."""

    async def pass_on(self, line: bytes | bytearray) -> None:
        """Send it a line."""


class RealScdaemon:
    """The process of the real scdaemon. find: see `Find`."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._process: Process | None = None
        self._control: Stream | None = None
        self._path = ""
        self._users = 0
        self._starting = asyncio.Lock()
        self.has_card = False

    async def connect(self) -> "RealConnection":
        """Start it if it does not run, and connect. Raises Failed."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                await self._start()
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(0)
                await asyncio.get_running_loop().sock_connect(sock, self._path)
            except OSError:
                sock.close()
                raise Failed(Code.ENODEV, "the real scdaemon does not answer") from None
            descriptor = sock.detach()
            connection = RealConnection(Stream(descriptor, descriptor), self)
            self._users += 1
        await connection.greeted()
        return connection

    async def _start(self) -> None:
        command = await self._find()
        if not command:
            raise Failed(Code.ENODEV, _NONE)
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = ours.detach()
            self._control = Stream(descriptor, descriptor)
            self.has_card = False
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    "--multi-server",
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=DEVNULL,
                )
            except OSError:
                self._hang_up()
                raise Failed(Code.ENODEV, _NONE) from None
        try:
            async with asyncio.timeout(START):
                await _reply(self._control)
                await self._control.write(assuan.command("GETINFO", "socket_name"))
                self._path = os.fsdecode(await _reply(self._control))
        except (TimeoutError, ProtocolError):
            await self.end()
            raise Failed(Code.ENODEV, "the real scdaemon does not answer") from None

    async def left(self) -> None:
        """Take note that a connection has ended."""
        self._users -= 1
        if not self._users and not self.has_card:
            await self.end()

    async def end(self) -> None:
        """End it: hang up first, and kill it if it does not end then."""
        self._hang_up()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(END):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


class RealConnection:
    """One conversation's connection to it."""

    def __init__(self, stream: Stream, real: RealScdaemon) -> None:
        self._stream = stream
        self._real = real

    async def greeted(self) -> None:
        """Read the greeting. Raises Failed."""
        try:
            await _reply(self._stream)
        except ProtocolError:
            await self.close()
            raise Failed(Code.ENODEV, "the real scdaemon does not answer") from None

    async def ask(self, line: bytes | bytearray) -> bool:
        """Have it carry out a command whose answer no client sees; return whether it did."""
        await self._stream.pass_on(line)
        try:
            await _reply(self._stream)
        except Failed:
            return False
        return True

    async def pass_on(self, line: bytes | bytearray, client: Client) -> bool:
        """Have it carry out a command for a client, of which it may inquire; return whether it did.

        Raises ProtocolError when the client or the real scdaemon has gone.
        """
        await self._stream.pass_on(line)
        while True:
            answer = await _next(self._stream)
            try:
                await client.pass_on(answer)
                word = bytes(answer[:8]).partition(b" ")[0]
            finally:
                wipe(answer)
            if word in (b"OK", b"ERR"):
                self._real.has_card |= word == b"OK"
                return word == b"OK"
            if word == b"INQUIRE":
                await self._answer(client)

    async def _answer(self, client: Client) -> None:
        """Pass on what the client answers to a question: lines of data, and END or CAN."""
        while True:
            line = await _next(client)
            try:
                last = bytes(line[:3]).upper() in (b"END", b"CAN")
                await self._stream.pass_on(line)
            finally:
                wipe(line)
            if last:
                return

    async def close(self) -> None:
        """Hang up."""
        self._stream.close()
        await self._real.left()


async def _next(end: Client) -> bytearray:
    line = await end.line()
    if line is None:
        raise ProtocolError("the other end has gone")
    return line


async def _reply(stream: Stream) -> bytes:
    """Return the data of a reply. Raises Failed, ProtocolError."""
    data = bytearray()
    while True:
        match assuan.parse(await _next(stream)):
            case assuan.Data(value):
                data += value
            case assuan.Ok():
                return bytes(data)
            case assuan.Err(_, text):
                raise Failed(Code.ENODEV, text)
