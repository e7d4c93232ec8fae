"""Assuan's lines over the descriptors of pipes or a socket. A line may hold a PIN."""

import asyncio
import os

from hsmagent.assuan import LineReader


class Stream:
    """Lines in and out. Its buffer is wiped as lines are returned. It owns its descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._lines = LineReader()
        for descriptor in (source, sink):
            os.set_blocking(descriptor, False)

    async def line(self) -> bytearray | None:
        """Return the next line, for the caller to wipe; None: the other end has gone.

        Raises ProtocolError for one that is too long.
        """
        while (line := self._lines.next_line()) is None:
            if not await self._read(self._lines.room):
                return None
        return line

    async def _read(self, room: memoryview) -> int:
        while True:
            try:
                count = os.readv(self._source, [room])
            except BlockingIOError:
                await self._until_ready(self._source, reading=True)
            except OSError:
                return 0
            else:
                self._lines.arrived(count)
                return count

    async def write(self, data: bytes | bytearray) -> None:
        """Write all of it. Raises nothing when the other end has gone: `line` tells that."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BlockingIOError:
                await self._until_ready(self._sink, reading=False)
            except OSError:
                return

    async def pass_on(self, line: bytes | bytearray) -> None:
        """Write a line, of which no copy is made."""
        await self.write(line)
        await self.write(b"\n")

    @staticmethod
    async def _until_ready(descriptor: int, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        (loop.add_reader if reading else loop.add_writer)(descriptor, _set, ready)
        try:
            await ready
        finally:
            (loop.remove_reader if reading else loop.remove_writer)(descriptor)

    def close(self) -> None:
        """Hang up."""
        self._lines.wipe()
        for descriptor in {self._source, self._sink}:
            os.close(descriptor)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
