"""The main of management's worker for SmartCard-HSMs: what PKCS#11 has no calls for.

Each order is one PC/SC transaction, for whose end other programs wait. It ends with a SELECT, which
ends the login: a login belongs to the card, and whatever program came next would have it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hsmagent.errors import ProtocolError
from hsmagent.schsm import pkcs15
from hsmagent.schsm.apdu import INS, SW
from hsmagent.schsm.card import (
    END_ENTITY,
    PRIVATE_KEY_DESCRIPTION,
    SO_PIN,
    TOKEN_INFO,
    USER_PIN,
    CardError,
    Initialization,
    PinStatus,
    SmartCardHsm,
    file_id,
    is_smartcard_hsm,
    key_numbers,
)
from hsmagent.schsm.tlv import SEQUENCE, first
from hsmagent.worker import main as token_worker
from hsmagent.worker.messages import Done, Failed, Reply, Request
from hsmagent.worker.orders import (
    CardDkek,
    CardInfo,
    CardKey,
    Cards,
    CardSaid,
    ChangeCardPin,
    DeleteFiles,
    ImportShare,
    InitializeCard,
    ListCards,
    Order,
    OrderReply,
    Tries,
    UnblockCard,
    UnwrapKeys,
    WrapKeys,
    WrappedKey,
    WrappedKeys,
)
from hsmagent.worker.pcsc import Pcsc, PcscError


class _Gone(Exception):
    """The card with the order's serial number is in no reader."""


def answer(request: Request | Order) -> Reply | OrderReply:
    """Do what the request says."""
    try:
        with Pcsc() as pcsc:
            if isinstance(request, ListCards):
                return _list(pcsc)
            return _carry_out(pcsc, request)
    except CardError as error:
        return CardSaid(error.ins, error.sw)
    except _Gone:
        return Failed(0, "the card is not there any more")
    except (PcscError, ProtocolError, OSError) as error:
        return Failed(0, str(error))


def _carry_out(pcsc: Pcsc, order: Request | Order) -> Reply | OrderReply:
    match order:
        case InitializeCard(serial=serial):
            with _card(pcsc, serial) as hsm:
                _initialize(hsm, order)
        case ChangeCardPin(serial=serial):
            with _card(pcsc, serial) as hsm:
                _change(hsm, order)
        case UnblockCard(serial, so_pin, pin):
            with _card(pcsc, serial) as hsm:
                hsm.unblock(so_pin, pin)
        case ImportShare(serial, share):
            with _card(pcsc, serial) as hsm:
                hsm.import_share(share)
        case WrapKeys(serial, pin, numbers):
            with _logged_in(pcsc, serial, pin) as hsm:
                return WrappedKeys(tuple(_wrapped(hsm, number) for number in numbers))
        case UnwrapKeys(serial, pin, keys):
            with _logged_in(pcsc, serial, pin) as hsm:
                for key in keys:
                    _unwrap(hsm, key)
        case DeleteFiles(serial, pin, files):
            with _logged_in(pcsc, serial, pin) as hsm:
                for file in files:
                    hsm.delete(file)
        case _:
            raise ProtocolError("a message that is not for this worker")
    return Done()


@contextmanager
def _card(pcsc: Pcsc, serial: str) -> Iterator[SmartCardHsm]:
    """Find a card by its serial number and keep it for the block. Raises _Gone."""
    for reader in pcsc.readers():
        if not is_smartcard_hsm(reader.atr):
            continue
        with pcsc.connect(reader.name) as card, card.transaction():
            hsm = SmartCardHsm(card.transmit, card.pad())
            hsm.select()
            if hsm.serial() != serial:
                continue
            try:
                yield hsm
            finally:
                with suppress(CardError, PcscError, ProtocolError):
                    hsm.select()
            return
    raise _Gone


@contextmanager
def _logged_in(pcsc: Pcsc, serial: str, pin: bytearray | None) -> Iterator[SmartCardHsm]:
    """Keep a card for the block, logged in. None: the PIN is typed on the reader."""
    with _card(pcsc, serial) as hsm:
        hsm.verify(pin)
        yield hsm


# -- looking ---------------------------------------------------------------------------------


def _list(pcsc: Pcsc) -> Cards:
    cards: list[CardInfo] = []
    notes: list[str] = []
    for reader in pcsc.readers():
        if not is_smartcard_hsm(reader.atr):
            continue
        try:
            with pcsc.connect(reader.name) as card, card.transaction():
                hsm, pad = SmartCardHsm(card.transmit), card.pad() is not None
                cards.append(_look(hsm, reader.name, pad=pad))
        except (PcscError, CardError, ProtocolError) as error:
            notes.append(f"the reader {reader.name} cannot be read: {error}")
    return Cards(tuple(cards), tuple(notes))


def _look(hsm: SmartCardHsm, reader: str, *, pad: bool) -> CardInfo:
    applet = hsm.select()
    dkek = hsm.dkek()
    objects = hsm.objects()
    return CardInfo(
        reader=reader,
        serial=hsm.serial(),
        label=_label(hsm),
        version=".".join(map(str, applet.version)),
        free_memory=hsm.free_memory(),
        user=_tries(hsm.pin_status(USER_PIN)),
        so=_tries(hsm.pin_status(SO_PIN)),
        dkek=None if dkek is None else CardDkek(dkek.shares, dkek.missing, dkek.kcv),
        keys=tuple(_key(hsm, number) for number in key_numbers(objects)),
        objects=objects,
        pad=pad,
    )


def _key(hsm: SmartCardHsm, number: int) -> CardKey:
    certified = _content(hsm, file_id(END_ENTITY, number))[:1] == bytes([SEQUENCE])
    try:
        said = pkcs15.key_description(_content(hsm, file_id(PRIVATE_KEY_DESCRIPTION, number)))
    except ValueError:
        return CardKey(number, "", b"", certified)
    return CardKey(number, said.label, said.id, certified)


def _tries(status: PinStatus) -> Tries:
    return Tries(status.is_set, status.tries)


def _label(hsm: SmartCardHsm) -> str:
    try:
        return pkcs15.token_label(_content(hsm, TOKEN_INFO))
    except ValueError:
        return ""


def _content(hsm: SmartCardHsm, file: int) -> bytes:
    """Return a file's content, empty where there is no such file."""
    try:
        return hsm.read(file)
    except CardError as error:
        if error.sw != SW.FILE_NOT_FOUND:
            raise
        return b""


# -- doing -----------------------------------------------------------------------------------


def _initialize(hsm: SmartCardHsm, order: InitializeCard) -> None:
    hsm.initialize(Initialization(order.pin, order.so_pin, order.tries, order.shares))
    hsm.select()
    if order.new_so_pin:
        hsm.change(SO_PIN, order.so_pin, order.new_so_pin)
    hsm.verify(order.pin)
    hsm.write(TOKEN_INFO, pkcs15.token_info(order.label))


def _change(hsm: SmartCardHsm, order: ChangeCardPin) -> None:
    if order.old is None or order.new is None:
        hsm.change_on_pad()
    else:
        hsm.change(SO_PIN if order.so else USER_PIN, order.old, order.new)


def _wrapped(hsm: SmartCardHsm, number: int) -> WrappedKey:
    description, certificate = (
        _object(hsm, file_id(high, number)) for high in (PRIVATE_KEY_DESCRIPTION, END_ENTITY)
    )
    return WrappedKey(number, hsm.wrap(number), description, certificate)


def _object(hsm: SmartCardHsm, file: int) -> bytes:
    """Return the data object in a file, without what is left of an older and longer one."""
    try:
        return first(_content(hsm, file))
    except ValueError:
        raise ProtocolError(f"the card's file {file:04X} cannot be read") from None


def _unwrap(hsm: SmartCardHsm, key: WrappedKey) -> None:
    if file_id(PRIVATE_KEY_DESCRIPTION, key.number) in hsm.objects():
        raise CardError(INS.UNWRAP_KEY, SW.EXISTS)
    hsm.unwrap(key.number, key.blob)
    for high, content in (
        (PRIVATE_KEY_DESCRIPTION, key.description),
        (END_ENTITY, key.certificate),
    ):
        if content:
            hsm.write(file_id(high, key.number), content)


def main() -> None:
    """Serve. argv is that of `worker.main`, without a module. Never returns."""
    token_worker.run(lambda: token_worker.by_messages(answer), sys.argv[-2:])
