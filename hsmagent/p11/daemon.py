"""The daemon, as this process asks it: one connection for each operation that is under way.

The first frame of a connection hands the program's own socket over, so that the kernel tells the
daemon who asks. A connection that is lost is made anew for the next operation.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from hsmagent.control.face_client import Answer, Connection, only_bytes
from hsmagent.control.values import to_base64
from hsmagent.errors import HsmAgentError, ProtocolError, Refused, Unavailable
from hsmagent.model import Key
from hsmagent.p11.mechanisms import Wish
from hsmagent.p11.objects import Token

log = logging.getLogger(__name__)

FIRST_LOOK = 10.0  # seconds
PAUSE = 0.2  # seconds between two attempts
TO_TELL = 2.0  # seconds for which a program waits until a person is told of a missing token
MOST_IDLE = 1  # connections that a program keeps between its operations
FAMILY = "pkcs11"
NOTHING: Answer = {"tokens": []}


class Program:
    """What one program has the daemon do. sock: the program's own."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self._path = path
        self._sock = sock
        self._idle: list[Connection] = []
        self._over = False

    async def perform(self, key: Key, wish: Wish) -> bytes:
        """Have an operation carried out; return its only result. Raises HsmAgentError.

        After a TokenGone the daemon itself has told the person.
        """
        token = key.token.uri if key.token is not None else ""
        answer = await self._call(wish.op, key=to_base64(key.spki), token=token, **wish.fields)
        return only_bytes(answer)

    async def missed(self, token: Token) -> None:
        """Have a person told that the program wants a token that is away; wait TO_TELL at most."""
        try:
            await asyncio.wait_for(self._call("missed", token=token.uri), TO_TELL)
        except (HsmAgentError, TimeoutError) as error:
            log.debug("nobody was told of a token that is away: %s", error)

    async def _call(self, op: str, **fields: object) -> Answer:
        connection = await self._connection()
        try:
            answer = await connection.call(op, **fields)
        except (Unavailable, ProtocolError, asyncio.CancelledError):
            connection.close()
            raise
        except BaseException:
            self._keep(connection)
            raise
        self._keep(connection)
        return answer

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_over:
                return connection
            connection.close()
        return await Connection.make(self._path, FAMILY, self._sock)

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
    """Follows the daemon's tokens. While there is no daemon, the last answer stays.

    show: told each answer to `tokens`. A lost connection is made anew only when a program needs it:
    a daemon that was stopped must not be started again for nothing. enabled: whether the
    configuration has PKCS#11 programs served; where it has not, there may be no socket to ask at.
    """

    def __init__(
        self, path: str, show: Callable[[Answer], None], enabled: Callable[[], bool]
    ) -> None:
        self._path = path
        self._show = show
        self._enabled = enabled
        self._needed = asyncio.Event()
        self._tried = asyncio.Event()

    def needed(self) -> None:
        """Say that a program looks at what is shown."""
        self._needed.set()

    async def looked(self) -> None:
        """Wait until the daemon was asked once; not for long, as it may be starting modules."""
        self.needed()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), FIRST_LOOK)

    async def run(self) -> None:
        """Follow the daemon, without end."""
        while True:
            await self._needed.wait()
            try:
                await self._follow()
            except Refused:  # by the configuration PKCS#11 programs are not served any more
                self._show(NOTHING)
            except (Unavailable, ProtocolError) as error:
                log.debug("%s", error)
                if not self._enabled():
                    self._show(NOTHING)
            self._tried.set()
            await asyncio.sleep(PAUSE)
            self._needed.clear()

    async def _follow(self) -> None:
        connection = await Connection.make(self._path, FAMILY)
        try:
            while True:
                self._show(await connection.call("tokens"))
                self._tried.set()
                await connection.call("changed")
        finally:
            connection.close()
