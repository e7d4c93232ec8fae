"""The daemon, as this process asks it: one connection for each operation that is under way.

The first frame of a connection hands the program's own socket over, so that the kernel tells the
daemon who asks. A connection that is lost is made anew for the next operation.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from hsmagent import frame
from hsmagent.control.client import CONTROL_MAX_FRAME, uid_of_server
from hsmagent.control.values import from_base64, to_base64
from hsmagent.errors import HsmAgentError, ProtocolError, Refused, Unavailable, of_kind
from hsmagent.model import Key
from hsmagent.p11.mechanisms import Wish

log = logging.getLogger(__name__)

PAUSE = 0.2  # seconds between two attempts
MOST_IDLE = 1  # connections that a program keeps between its operations

Answer = dict[str, Any]


class Connection:
    """A connection to the daemon's face socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def make(cls, path: str, program: socket.socket | None) -> "Connection":
        """Connect on behalf of a program, whose socket goes along; None: to look only.

        Raises Unavailable where no daemon of ours answers, else what it answers.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(0)
        first = frame.encode(json.dumps({"op": "client", "for": "pkcs11"}).encode())
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
            _check_server(sock, path)
            socket.send_fds(sock, [first], [program.fileno()] if program is not None else [])
            made = cls(*await asyncio.open_connection(sock=sock))
        except OSError:
            sock.close()
            raise Unavailable(f"no daemon answers at {path}") from None
        except BaseException:
            sock.close()
            raise
        try:
            await made._answer()
        except BaseException:
            made.close()
            raise
        return made

    async def call(self, op: str, **fields: object) -> Answer:
        """Ask for one operation. Raises Unavailable when the connection is lost, and errors."""
        body = json.dumps({"op": op, **fields}).encode()
        try:
            self._writer.write(frame.encode(body))
        except OSError:
            raise _lost() from None
        return await self._answer()

    async def _answer(self) -> Answer:
        try:
            header = await self._reader.readexactly(frame.HEADER)
            length = int.from_bytes(header, "big")
            if not 0 < length <= CONTROL_MAX_FRAME:
                raise ProtocolError("the daemon's answer is none; is it an older one?")
            answer = json.loads(await self._reader.readexactly(length))
            if "error" in answer:
                raise _told(of_kind(answer["error"]["kind"], answer["error"]["message"]))
            result: Answer = answer["ok"]
        except (OSError, asyncio.IncompleteReadError):
            raise _lost() from None
        except (ValueError, TypeError, KeyError):
            raise ProtocolError("the daemon's answer is none; is it an older one?") from None
        return result

    @property
    def is_over(self) -> bool:
        """Whether the daemon has hung up."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def _check_server(sock: socket.socket, path: str) -> None:
    if uid_of_server(sock) != os.getuid():
        raise Unavailable(f"no daemon of yours answers at {path}")


def _told(error: HsmAgentError) -> HsmAgentError:
    """Return what the daemon answers: it is there, so nothing that it says is Unavailable."""
    return Refused(str(error)) if isinstance(error, Unavailable) else error


def _lost() -> Unavailable:
    return Unavailable("the daemon hung up; its log says why")


class Program:
    """What one program has the daemon do. sock: the program's own."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self._path = path
        self._sock = sock
        self._idle: list[Connection] = []
        self._over = False

    async def perform(self, key: Key, wish: Wish) -> bytes:
        """Have an operation carried out; return its only result. Raises HsmAgentError."""
        connection = await self._connection()
        try:
            answer = await connection.call(wish.op, key=to_base64(key.spki), **wish.fields)
        except (Unavailable, ProtocolError, asyncio.CancelledError):
            connection.close()
            raise
        except BaseException:
            self._keep(connection)
            raise
        self._keep(connection)
        try:
            (result,) = answer.values()
            return from_base64(result)
        except (ValueError, TypeError):
            raise ProtocolError("the daemon's answer is none; is it an older one?") from None

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_over:
                return connection
            connection.close()
        return await Connection.make(self._path, self._sock)

    def _keep(self, connection: Connection) -> None:
        if self._over or connection.is_over or len(self._idle) >= MOST_IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def end(self) -> None:
        """Hang up: the program has gone."""
        self._over = True
        while self._idle:
            self._idle.pop().close()


class Watch:
    """Keeps what is shown as the daemon has it; while there is no daemon, as it had it last.

    show: told each answer to `tokens`. A lost connection is made anew when a program needs it, and
    not before: a daemon that was stopped shall not be started again for nothing.
    """

    def __init__(self, path: str, show: Callable[[Answer], None]) -> None:
        self._path = path
        self._show = show
        self._needed = asyncio.Event()
        self._tried = asyncio.Event()

    def needed(self) -> None:
        """Say that a program looks at what is shown."""
        self._needed.set()

    @property
    def has_looked(self) -> bool:
        """Whether the daemon was asked once, with whatever success."""
        return self._tried.is_set()

    async def looked(self) -> None:
        """Wait until the daemon was asked once."""
        self.needed()
        await self._tried.wait()

    async def run(self) -> None:
        """Follow the daemon, without end."""
        while True:
            await self._needed.wait()
            try:
                await self._follow()
            except Refused:  # the configuration has programs served no longer
                self._show({"tokens": []})
            except (Unavailable, ProtocolError) as error:
                log.debug("%s", error)
            self._tried.set()
            await asyncio.sleep(PAUSE)
            self._needed.clear()

    async def _follow(self) -> None:
        connection = await Connection.make(self._path, None)
        try:
            while True:
                self._show(await connection.call("tokens"))
                self._tried.set()
                await connection.call("changed")
        finally:
            connection.close()
