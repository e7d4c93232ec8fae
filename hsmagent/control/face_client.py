"""The face socket, a client's end that waits in asyncio: for what serves PKCS#11 and GnuPG."""

import asyncio
import json
import os
import socket
from typing import Any

from hsmagent import frame
from hsmagent.control.client import CONTROL_MAX_FRAME, uid_of_server
from hsmagent.errors import HsmAgentError, ProtocolError, Refused, Unavailable, of_kind

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
        """Connect on behalf of a family of programs; a program's socket goes along, if there is.

        Raises Unavailable where no daemon of ours answers, else what it answers.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(0)
        first = frame.encode(json.dumps({"op": "client", "for": family}).encode())
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
