"""A client's end of the face socket, in asyncio: for the processes that serve PKCS#11 and GnuPG."""

import asyncio
import json
import socket
from typing import Any

from hsmagent import frame
from hsmagent.control.client import (
    CONTROL_MAX_FRAME,
    check_server,
    hung_up,
    result_of,
    unreadable,
)
from hsmagent.control.values import from_base64
from hsmagent.errors import Refused, Unavailable

Answer = dict[str, Any]


class Connection:
    """A connection to the daemon's face socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def make(
        cls, path: str, family: str, program: socket.socket | None = None
    ) -> "Connection":
        """Connect on behalf of a family of programs. program: its socket, which is handed over.

        Raises Unavailable where no daemon of this user answers, else the error that it answers.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(0)
        first = frame.encode(json.dumps({"op": "client", "for": family}).encode())
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
            check_server(sock, path)
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
        """Ask for one operation; return its answer.

        Raises Unavailable when the connection is lost, else the error that the daemon answers.
        """
        body = json.dumps({"op": op, **fields}).encode()
        try:
            self._writer.write(frame.encode(body))
        except OSError:
            raise hung_up() from None
        return await self._answer()

    async def _answer(self) -> Answer:
        try:
            header = await self._reader.readexactly(frame.HEADER)
            length = int.from_bytes(header, "big")
            if not 0 < length <= CONTROL_MAX_FRAME:
                raise unreadable()
            return result_of(json.loads(await self._reader.readexactly(length)))
        except Unavailable as error:  # the daemon's answer: here it would mean a lost connection
            raise Refused(str(error)) from None
        except (OSError, asyncio.IncompleteReadError):
            raise hung_up() from None
        except (ValueError, TypeError, KeyError):
            raise unreadable() from None

    @property
    def is_over(self) -> bool:
        """Whether the daemon has hung up."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def only_bytes(answer: Answer) -> bytes:
    """Return the only result of an operation that uses a key. Raises ProtocolError."""
    try:
        (result,) = answer.values()
        return from_base64(result)
    except (ValueError, TypeError):
        raise unreadable() from None
