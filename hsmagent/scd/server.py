"""The process: one conversation on standard input and output, and one on each connection.

GnuPG's agent keeps the first one for its whole life, and makes a connection for each client that
comes while the first one is in use.
"""

import asyncio
import logging
import os
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hsmagent.errors import ProtocolError
from hsmagent.model import printable
from hsmagent.scd import stubs
from hsmagent.scd.card import Card
from hsmagent.scd.conversation import Conversation
from hsmagent.scd.daemon import Daemon
from hsmagent.scd.real import RealScdaemon
from hsmagent.scd.stream import Stream
from hsmagent.tasks import Tasks
from hsmagent.who.peer import credentials_of

log = logging.getLogger(__name__)

MOST = 128  # conversations at once
ASKED = 10.0  # seconds for gpgconf
AHEAD = 64  # lines that a client may send before it has read the answers
# gpgsm warns of a scdaemon that is older than itself.
NEWER = "2.99.0"


class Server:
    """Serves GnuPG's agent. daemon: the path of the daemon's face socket.

    listening: for further conversations, at `socket_path`. home: GnuPG's folder. real: the real
    scdaemon; "": GnuPG's own. options: what it is given.
    """

    def __init__(
        self,
        daemon: str,
        listening: socket.socket,
        socket_path: str,
        *,
        home: Path,
        real: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.card = Card()
        self.socket_path = socket_path
        self.real = RealScdaemon(self._find_real)
        self._daemon = daemon
        self._listening = listening
        self._home = home
        self._real = real
        self._options = options
        self._version = ""
        self._ended = asyncio.Event()
        self._tasks = Tasks()

    async def run(self, source: int, sink: int) -> None:
        """Serve until the first conversation ends, or somebody ends the process."""
        first = self._tasks.start(self._converse(Stream(source, sink)))
        first.add_done_callback(lambda _: self.end())
        accepting = self._tasks.start(self._accept())
        try:
            await self._ended.wait()
        finally:
            accepting.cancel()
            self._tasks.cancel()
            await self._tasks.ended()
            await self.real.end()

    def end(self) -> None:
        """End the whole process."""
        self._ended.set()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listening)
            if credentials_of(sock)[1] != os.getuid() or len(self._tasks) > MOST:
                sock.close()
                continue
            descriptor = sock.detach()
            self._tasks.start(self._converse(Stream(descriptor, descriptor)))

    async def _converse(self, stream: Stream) -> None:
        """Hold one conversation. A question that the daemon asks for it ends with it."""
        lines = _Lines(stream)
        conversation = Conversation(lines, Daemon(self._daemon), self)
        reading = asyncio.ensure_future(lines.read())
        talking = asyncio.ensure_future(conversation.run())
        try:
            await asyncio.wait((reading, talking), return_when=asyncio.FIRST_COMPLETED)
            if conversation.left_alone():
                talking.cancel()
            await asyncio.wait((talking,))
            if not talking.cancelled():
                talking.result()
        except ProtocolError as error:
            log.warning("hung up on GnuPG's agent: %s", error)
        finally:
            for task in (reading, talking):
                task.cancel()
            await asyncio.gather(reading, talking, return_exceptions=True)
            await conversation.close()
            stream.close()

    # -- facts about GnuPG -------------------------------------------------------------------

    async def version(self) -> str:
        """Return the version of GnuPG that is installed."""
        if not self._version:
            first = (await _gpgconf("--version")).partition("\n")[0]
            self._version = printable(first.rpartition(" ")[2], 20) or NEWER
        return self._version

    def has_learned(self, grip: str) -> bool:
        """Whether GnuPG knows the key of this keygrip as one of our card's."""
        return stubs.is_ours(stubs.read(self._home, grip))

    async def _find_real(self) -> Sequence[str]:
        if self._real:
            return [self._real, *self._options]
        for line in (await _gpgconf("--list-components")).splitlines():
            name, _, rest = line.partition(":")
            path = rest.rpartition(":")[2]
            if name == "scdaemon" and os.access(path, os.X_OK):
                return [path, *self._options]
        return []


async def _gpgconf(word: str) -> str:
    """Return what gpgconf prints, or "" where it does not run."""
    try:
        child = await asyncio.create_subprocess_exec(
            "gpgconf", word, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(ASKED):
            said, _ = await child.communicate()
    except TimeoutError:
        return ""
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return said.decode(errors="replace")


class _Lines:
    """A stream that is read ahead, so that its end is seen while a command is carried out."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue = asyncio.Queue[bytearray | ProtocolError | None](AHEAD)
        self.pass_on = stream.pass_on
        self.write = stream.write

    async def read(self) -> None:
        """Read until the other end has gone."""
        try:
            while (line := await self._stream.line()) is not None:
                await self._queue.put(line)
            await self._queue.put(None)
        except ProtocolError as error:
            await self._queue.put(error)

    async def line(self) -> bytearray | None:
        """Return the next line; None: the other end has gone. Raises ProtocolError."""
        found = await self._queue.get()
        if isinstance(found, ProtocolError):
            raise found
        return found
