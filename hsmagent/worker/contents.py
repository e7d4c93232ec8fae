"""What SmartCard-HSMs hold, asked for without disturbing other programs.

No event of PC/SC tells that another program has made or deleted a key. The card's own list does,
in one command that needs no login and ends none. SELECT would end a login, whichever program made
it: so it is sent only to a card that no program is connected to and whose application is not
selected. A card that a program keeps to itself, or is in the middle of using, is left alone.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from hsmagent.errors import ProtocolError
from hsmagent.schsm.card import TOKEN_INFO, USER_PIN, CardError, SmartCardHsm, is_smartcard_hsm
from hsmagent.worker.messages import CardContents
from hsmagent.worker.pcsc import Pcsc, PcscError, Reader


def contents_of(readers: Iterable[Reader]) -> Mapping[str, CardContents]:
    """Return, by the readers' names, what could be read. Never raises.

    Needs PCSCLITE_NO_BLOCKING, or it waits for other programs.
    """
    found: dict[str, CardContents] = {}
    with suppress(PcscError, OSError), Pcsc() as pcsc:
        for reader in readers:
            if is_smartcard_hsm(reader.atr) and not reader.exclusive:
                with suppress(PcscError, CardError, ProtocolError):
                    found[reader.name] = _contents(pcsc, reader)
    return found


def _contents(pcsc: Pcsc, reader: Reader) -> CardContents:
    with pcsc.connect(reader.name) as card, card.transaction():
        hsm = SmartCardHsm(card.transmit)
        try:
            objects = hsm.objects()
        except CardError:
            if reader.in_use:
                raise  # the program that uses it may be logged in to another application
            hsm.select()
            objects = hsm.objects()
        return CardContents(
            objects=b"".join(each.to_bytes(2, "big") for each in sorted(objects)),
            # Reading a file makes it the card's current one, under another program's feet.
            label=b"" if reader.in_use else hsm.read(TOKEN_INFO),
            logged_in=hsm.pin_status(USER_PIN).logged_in,
        )
