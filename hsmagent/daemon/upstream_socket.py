"""The connection to another agent (`[ssh] upstream`): frames over its socket, with deadlines.

When that agent is not there, hangs or dies, only its own identities are missing: after a failure
nobody waits for it again for a while.
"""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path

from hsmagent import frame
from hsmagent.errors import ProtocolError, Unavailable
from hsmagent.model import Clock
from hsmagent.tasks import in_a_task

log = logging.getLogger(__name__)

CONNECT_SECONDS = 1.0
# After a failure, connections do without the other agent for so long.
REST_SECONDS = 30.0
# OpenSSH's agent takes 16 bindings.
MOST_HELD = 64
# gcr-ssh-agent up to 3.41 crashes on any extension; this is where its socket is.
_NO_EXTENSIONS = ("gcr", "ssh")


class UpstreamAgent:
    """Another agent: where its socket is, and whether it failed a moment ago."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.takes_bindings = path.parts[-2:] != _NO_EXTENSIONS
        self._clock = clock
        self._rests_until = float("-inf")

    def link(self) -> "UpstreamLink":
        """Return a connection for one client; it is made at the first request."""
        return UpstreamLink(self)

    def is_at(self, path: str) -> bool:
        """Whether the agent is the one that listens at `path`: ourselves."""
        return os.path.realpath(self.path) == os.path.realpath(path)

    @property
    def rests(self) -> bool:
        """Whether it failed a moment ago."""
        return self._clock() < self._rests_until

    def failed(self) -> None:
        """Note a failure: for REST_SECONDS nobody tries this agent again."""
        self._rests_until = self._clock() + REST_SECONDS


class UpstreamLink:
    """The connection of one client. It is made again when the agent has been started anew.

    Messages that hold for the connection (session bindings) are sent again on each new one.
    Implements `ssh.upstream.Link`.
    """

    def __init__(self, agent: UpstreamAgent) -> None:
        self._agent = agent
        self._reader = frame.Reader(frame.SSH_MAX_FRAME)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._holds: list[bytes] = []
        self._closed = False

    @property
    def takes_bindings(self) -> bool:
        """Whether the agent may be sent extensions."""
        return self._agent.takes_bindings

    async def ask(self, request: bytes, seconds: float, *, holds: bool = False) -> bytes:
        """Send a message, and return the reply. Raises Unavailable.

        holds: the message holds for the connection, and is sent again on each new one.
        """
        await in_a_task()
        try:
            self._check()
            async with asyncio.timeout(seconds):
                return await self._exchange(request)
        except TimeoutError:
            self._fail()
            raise Unavailable(f"{self._agent.path} does not answer") from None
        except (OSError, EOFError, ProtocolError) as error:
            self._fail()
            why = getattr(error, "strerror", None) or "it hung up"
            raise Unavailable(f"{self._agent.path}: {why}") from None
        except BaseException:
            self._hang_up()  # else the reply would be taken for that to the next message
            raise
        finally:
            if holds:
                self._hold(request)

    def _check(self) -> None:
        """Notice a connection that has ended. Raises Unavailable where none is to be made now."""
        if self._closed:
            raise Unavailable(f"the connection to {self._agent.path} has ended")
        if self._streams is not None and self._streams[0].at_eof():
            self._hang_up()
        if self._streams is None and self._agent.rests:
            raise Unavailable(f"{self._agent.path} failed a moment ago")

    def _hold(self, request: bytes) -> None:
        self._holds.append(request)
        if len(self._holds) > MOST_HELD:
            # No real client sends so many, and a new connection without some of them would not be
            # the same.
            self.close()

    async def _exchange(self, request: bytes) -> bytes:
        if self._streams is None:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_unix_connection(self._agent.path)
            self._reader = frame.Reader(frame.SSH_MAX_FRAME)
            for held in self._holds:
                await self._say(self._streams, held)
        return await self._say(self._streams, request)

    async def _say(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
    ) -> bytes:
        reader, writer = streams
        writer.write(frame.encode(request))
        await writer.drain()
        while (body := self._reader.next_frame()) is None:
            data = await reader.read(65536)
            if not data:
                raise EOFError
            self._reader.feed(data)
        return bytes(body)

    def _fail(self) -> None:
        self._agent.failed()
        self._hang_up()

    def close(self) -> None:
        """Hang up, for good."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._streams is not None:
            with suppress(OSError, RuntimeError):
                self._streams[1].transport.abort()
            self._streams = None
