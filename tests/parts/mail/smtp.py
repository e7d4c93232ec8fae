"""An SMTP server on loopback that keeps what it gets."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Sink:
    """Messages as (sender, recipients, content with CRLF)."""

    port: int = 0
    messages: list[tuple[str, tuple[str, ...], bytes]] = field(default_factory=list)

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.original_content, bytes)
        to = tuple(map(str, envelope.rcpt_tos))
        self.messages.append((str(envelope.mail_from), to, envelope.original_content))
        return "250 OK"


@contextmanager
def sink() -> Iterator[Sink]:
    """Run one, on a port of its own, in a thread."""
    kept, loop = Sink(), asyncio.new_event_loop()
    serving = loop.create_server(lambda: SMTP(kept, loop=loop, hostname="sink"), "127.0.0.1", 0)
    server = loop.run_until_complete(serving)
    kept.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield kept
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
