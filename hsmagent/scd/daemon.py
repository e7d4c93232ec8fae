"""One conversation's connection to the daemon, made when it is needed."""

import asyncio

from hsmagent.control.client import unreadable
from hsmagent.control.face_client import Answer, Connection, only_bytes
from hsmagent.control.values import to_base64
from hsmagent.errors import ProtocolError, Unavailable, UsageError
from hsmagent.model import Key
from hsmagent.scd.card import Card

FAMILY = "gnupg"


class Daemon:
    """The daemon at the face socket of this path; a connection that is lost is made anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: Connection | None = None

    async def card(self, before: Card) -> Card:
        """Return the card as of now. Raises HsmAgentError."""
        answer = await self._call("tokens")
        try:
            return before.following(answer)
        except (UsageError, ValueError, TypeError):
            raise unreadable() from None

    async def use(self, key: Key, op: str, **fields: object) -> bytes:
        """Have a key used; return the only result. Bytes travel as base64. Raises HsmAgentError."""
        values = {
            name: to_base64(value) if isinstance(value, bytes) else value
            for name, value in fields.items()
        }
        answer = await self._call(op, key=to_base64(key.spki), **values)
        return only_bytes(answer)

    async def _call(self, op: str, **fields: object) -> Answer:
        if self._connection is None or self._connection.is_over:
            self.close()
            self._connection = await Connection.make(self._path, FAMILY)
        try:
            return await self._connection.call(op, **fields)
        except (Unavailable, ProtocolError, asyncio.CancelledError):
            self.close()
            raise

    def close(self) -> None:
        """Hang up. The daemon then takes back a question that it asks for this connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
