"""A worker that tells which readers have a card, without holding any.

A module's worker keeps a connection to each card, and so keeps off every program that wants it to
itself. This one stands in for it while nobody uses the card. It knows two requests: Poll and Await.
"""

import sys
import zlib

from hsmagent.errors import ProtocolError
from hsmagent.worker import main as token_worker
from hsmagent.worker.messages import (
    READER_HAS_CARD,
    READER_IN_USE,
    READER_INSERTIONS,
    Await,
    Poll,
    Polled,
    Request,
)
from hsmagent.worker.orders import Order
from hsmagent.worker.pcsc import Pcsc, PcscError, Reader

# Where pcscd tells of readers that come and go (SCardGetStatusChange(3)).
_COMING_AND_GOING = Reader("\\\\?PnP?\\Notification", 0, 0, b"")
_SERVED = 1 << 32


class Readers:
    """The readers, by a connection to pcscd that is made anew when it was cut."""

    def __init__(self) -> None:
        self._pcsc: Pcsc | None = None
        self._known: tuple[Reader, ...] = ()

    def answer(self, request: Request | Order) -> Polled:
        """Tell each reader's number, and its state and insertions as one number.

        `events` is another number when the readers are others; 0: there is no pcscd.
        """
        if not isinstance(request, Poll | Await):
            raise ProtocolError("a message that is not for this worker")
        try:
            self._pcsc = self._pcsc or Pcsc()
            if isinstance(request, Await):
                self._pcsc.wait((*self._known, _COMING_AND_GOING), request.seconds)
            self._known = self._pcsc.readers()
        except (PcscError, OSError):
            self._pcsc = None
            self._known = ()
            return Polled(0, ())
        names = "\0".join(reader.name for reader in self._known).encode(errors="replace")
        states = tuple(enumerate(map(_state, self._known)))
        return Polled(_SERVED + zlib.crc32(names), states)


def _state(reader: Reader) -> int:
    return (
        READER_HAS_CARD * reader.has_card
        | READER_IN_USE * reader.in_use
        | reader.insertions << READER_INSERTIONS
    )


def main() -> None:
    """Serve. Never returns."""
    token_worker.run(lambda: Readers().answer, sys.argv[-2:])
