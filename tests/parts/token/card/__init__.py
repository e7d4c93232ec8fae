"""A virtual SmartCard-HSM behind the real pcscd and OpenSC.

`with inserted(furnished()) as reader:` puts a card into a reader that only clients with
`reader.provider.environment` see.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.parts.token.card.card import DEFAULT_PIN, DEFAULT_SO_PIN, Card
from tests.parts.token.card.furnished import furnished
from tests.parts.token.card.pinpad import PinPad
from tests.parts.token.card.vpcd import Slot
from tests.parts.token.pcscd import Pcscd
from tests.parts.token.provider import Provider, find_module
from tests.parts.until import until

__all__ = ["DEFAULT_PIN", "DEFAULT_SO_PIN", "Card", "PinPad", "Reader", "furnished", "inserted"]


class Reader:
    """A reader with a card: plug, unplug, and what clients need to find it."""

    def __init__(self, pcscd: Pcscd, card: Card) -> None:
        self.pcscd = pcscd
        self.card = card
        self._slot = Slot(card, pcscd.port)
        self.unplug = self._slot.unplug

    def plug(self, card: Card | None = None) -> None:
        """Put the card, or another one, in; returns when pcscd knows.

        It looks every 0.4 seconds, and to it a card that is back sooner was never gone.
        """
        self.unplug()
        if card is not None:
            self.card = self._slot.card = card
        until(lambda: not self.pcscd.has_card)
        self._slot.plug()
        until(lambda: self.pcscd.has_card)
        if not self.pcscd.saw_insertion:
            self.plug()

    @property
    def provider(self) -> Provider:
        """OpenSC's module, and the way to our pcscd."""
        return Provider(find_module("opensc-pkcs11.so"), DEFAULT_PIN, self.pcscd.environment)

    def restart_pcscd(self, *, keep_socket: bool = False) -> None:
        """End pcscd, start it again and put the card back in."""
        self.pcscd.stop(keep_socket=keep_socket)
        self.unplug()
        self.pcscd.start()
        self.plug()


@contextmanager
def inserted(card: Card, pad: PinPad | None = None) -> Iterator[Reader]:
    """Start a pcscd of its own and put `card` into its reader, which may have a PIN pad."""
    pcscd = Pcscd(pad.driver) if pad else Pcscd()
    reader = Reader(pcscd, card)
    try:
        reader.plug()
        yield reader
    finally:
        reader.unplug()
        pcscd.close()
