"""A worker that tells which readers have a card, without holding any.

A module's worker keeps a connection to each card, and so keeps off every program that wants it to
itself. This one stands in for it while nobody uses the card. It knows one request: Poll.
"""

import sys
import zlib

from hsmagent.errors import ProtocolError
from hsmagent.worker import main as token_worker
from hsmagent.worker.messages import (
    READER_HAS_CARD,
    READER_IN_USE,
    READER_INSERTIONS,
    Poll,
    Polled,
    Request,
)
from hsmagent.worker.orders import Order
from hsmagent.worker.pcsc import Pcsc, PcscError, Reader


class Readers:
    """The readers, by a connection to pcscd that is made anew when it was cut."""

    def __init__(self) -> None:
        self._pcsc: Pcsc | None = None

    def answer(self, request: Request | Order) -> Polled:
        """Tell each reader's number, and its state and insertions as one number."""
        if not isinstance(request, Poll):
            raise ProtocolError("a message that is not for this worker")
        try:
            self._pcsc = self._pcsc or Pcsc()
            readers = self._pcsc.readers()
        except (PcscError, OSError):
            self._pcsc = None
            return Polled(0, ())
        names = zlib.crc32("\0".join(r.name for r in readers).encode(errors="replace"))
        return Polled(names, tuple(enumerate(map(_state, readers))))


def _state(reader: Reader) -> int:
    return (
        READER_HAS_CARD * reader.has_card
        | READER_IN_USE * reader.in_use
        | reader.insertions << READER_INSERTIONS
    )


def main() -> None:
    """Serve. Never returns."""
    token_worker.run(lambda: Readers().answer, sys.argv[-2:])
