"""A worker that tells which readers have a card, without holding any.

A module's worker keeps a connection to each card, and so no other program can have a card to
itself. While nobody uses the cards that worker is ended, and this one watches the readers. It knows
one request: PollReaders.
"""

import sys
from collections.abc import Mapping
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

from hsmagent.errors import ProtocolError
from hsmagent.worker import main as token_worker
from hsmagent.worker.messages import (
    CardContents,
    CardReader,
    CardReaders,
    PollReaders,
    Request,
)
from hsmagent.worker.pcsc import Pcsc, PcscError, Reader

if TYPE_CHECKING:
    from hsmagent.worker.orders import Order

# Where pcscd tells of readers that come and go (SCardGetStatusChange(3)).
_COMING_AND_GOING = Reader("\\\\?PnP?\\Notification", 0, 0, b"")
# Connecting to a card waits for another program's command to end, which may take minutes.
_SECONDS = 0.5


class Readers:
    """The readers, by way of a connection to pcscd that is made anew when it was lost."""

    def __init__(self) -> None:
        self._pcsc: Pcsc | None = None
        self._known: tuple[Reader, ...] = ()
        self._asking = Asking()

    def answer(self, request: "Request | Order") -> CardReaders:
        """Tell the state of each reader; no readers where pcscd does not answer."""
        if not isinstance(request, PollReaders):
            raise ProtocolError("a message that is not for this worker")
        try:
            self._pcsc = self._pcsc or Pcsc()
            if request.seconds:
                self._pcsc.wait((*self._known, _COMING_AND_GOING), request.seconds)
            self._known = self._pcsc.readers()
        except (PcscError, OSError):
            self._pcsc, self._known = None, ()
            return CardReaders(())
        contents = self._asking.ask(self._known) if request.contents else {}
        return CardReaders(tuple(_told(each, contents.get(each.name)) for each in self._known))


class Asking:
    """A thread that asks cards for their contents, so that nobody waits for a card that is busy."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[tuple[Reader, ...]] = SimpleQueue()
        self._found: Mapping[str, CardContents] = {}
        self._done = Event()
        self._done.set()
        self._thread: Thread | None = None

    def ask(self, readers: tuple[Reader, ...]) -> Mapping[str, CardContents]:
        """Return the contents, by reader; nothing when they do not come within _SECONDS."""
        if not self._done.is_set():
            return {}
        if self._thread is None:
            self._thread = Thread(target=self._run, daemon=True)
            self._thread.start()
        self._done.clear()
        self._wanted.put(readers)
        return self._found if self._done.wait(_SECONDS) else {}

    def _run(self) -> None:
        from hsmagent.worker.contents import contents_of

        while True:
            readers = self._wanted.get()
            try:
                self._found = contents_of(readers)
            finally:
                self._done.set()


def _told(reader: Reader, contents: CardContents | None) -> CardReader:
    return CardReader(
        name=reader.name.encode(errors="surrogateescape"),
        has_card=reader.has_card,
        in_use=reader.in_use,
        exclusive=reader.exclusive,
        mute=reader.mute,
        insertions=reader.insertions,
        contents=contents,
    )


def main() -> None:
    """Serve. Never returns."""
    token_worker.run(lambda: token_worker.by_messages(Readers().answer), sys.argv[-2:])
