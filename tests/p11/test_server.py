"""One program's connection, with answers that a test gives when it likes."""

import asyncio
import socket
import struct
from collections.abc import Awaitable
from typing import Any

from hsmagent.p11 import rpc
from hsmagent.p11.calls import Call
from hsmagent.p11.server import MOST_WAITING, Connection
from tests.parts.token.p11_rpc import request
from tests.parts.until import async_until


class Program:
    """What the connection has of the daemon; nothing here."""

    def end(self) -> None:
        """Do nothing."""


async def test_calls_that_end_at_once_make_room_for_the_others() -> None:
    """All that wait end in one turn of the loop; whoever was not read meanwhile is read again."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    waiting: list[asyncio.Future[bytes]] = []

    def answer(_: bytearray) -> bytes | Awaitable[bytes]:
        waiting.append(asyncio.get_running_loop().create_future())
        return waiting[-1]

    def admit(*_: object) -> Any:
        return answer, Program()

    def forget(*_: object) -> None:
        pass

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        lambda: Connection(admit, forget, bytearray(65536)), sock=ours
    )
    body = request(Call.C_GetInfo)
    count = 3 * MOST_WAITING
    frames = b"".join(struct.pack(">III", code, 0, len(body)) + body for code in range(count))
    await loop.sock_sendall(theirs, b"\0" + frames)
    answered = 0
    while answered < count:
        await async_until(lambda: len(waiting) - answered == MOST_WAITING)  # noqa: B023
        for future in waiting[answered:]:
            future.set_result(rpc.error(1))
        answered = len(waiting)
    transport.close()
    theirs.close()
