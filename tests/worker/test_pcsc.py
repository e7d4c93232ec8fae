"""libpcsclite and a real pcscd, whose reader holds the virtual card."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from hsmagent.schsm.card import ATR, USER_PIN, CardError, SmartCardHsm
from hsmagent.worker.pcsc import Pcsc, PcscError
from tests.parts.token.card import DEFAULT_PIN, Reader, furnished, inserted
from tests.parts.token.pkcs11_tool import pkcs11_tool, reset_card
from tests.parts.until import until


@pytest.fixture(scope="module")
def place() -> Iterator[Reader]:
    # One for all: the library looks once in a process where pcscd is.
    with inserted(furnished()) as reader, pytest.MonkeyPatch.context() as patch:
        for name, value in reader.provider.environment.items():
            patch.setenv(name, value)
        yield reader


@pytest.fixture
def reader(place: Reader) -> Reader:
    place.plug(furnished())
    return place


@pytest.fixture
def pcsc(reader: Reader) -> Iterator[Pcsc]:
    with Pcsc() as pcsc:
        yield pcsc


def name_of(pcsc: Pcsc) -> str:
    return next(reader.name for reader in pcsc.readers() if reader.has_card)


def pin() -> bytearray:
    return bytearray(DEFAULT_PIN.encode())


def test_tells_which_reader_has_a_card_without_touching_it(reader: Reader, pcsc: Pcsc) -> None:
    before = len(reader.card.knobs.log)
    with_card, empty = pcsc.readers()
    assert with_card.has_card
    assert with_card.atr == ATR
    assert not with_card.in_use
    assert not empty.has_card
    assert not empty.atr
    assert len(reader.card.knobs.log) == before


def test_a_card_that_was_swapped_is_counted(reader: Reader, pcsc: Pcsc) -> None:
    first, _ = pcsc.readers()
    reader.plug(furnished("DENK0200002"))
    second, _ = pcsc.readers()
    assert second.has_card
    assert second.insertions > first.insertions


def test_a_wait_ends_when_the_card_goes(reader: Reader, pcsc: Pcsc) -> None:
    known = pcsc.readers()
    taking = threading.Timer(0.2, reader.unplug)
    taking.start()
    changed = pcsc.wait(known, 20)
    taking.join()
    assert not changed[0].has_card
    assert pcsc.wait(changed, 0.05) == changed


def test_no_service_is_told(reader: Reader) -> None:
    reader.unplug()
    reader.pcscd.stop()
    with pytest.raises(PcscError, match="not running"):
        Pcsc()
    reader.pcscd.start()
    reader.plug()
    with Pcsc() as pcsc:
        assert pcsc.readers()[0].has_card


def test_commands_reach_the_card(reader: Reader, pcsc: Pcsc) -> None:
    with pcsc.connect(name_of(pcsc)) as card, card.transaction():
        hsm = SmartCardHsm(card.transmit)
        assert hsm.select().version == (3, 5)
        assert hsm.serial() == "DENK0100001"
        assert (0xCC << 8 | 1) in hsm.objects()
        assert pcsc.readers()[0].in_use
    assert not reader.card.logged_in


def test_a_transaction_keeps_others_waiting(reader: Reader, pcsc: Pcsc) -> None:
    listed = threading.Event()

    def listing() -> None:
        pkcs11_tool(reader.provider, "--list-objects")
        listed.set()

    with pcsc.connect(name_of(pcsc)) as card:
        with card.transaction():
            hsm = SmartCardHsm(card.transmit)
            hsm.select()
            hsm.verify(pin())
            other = threading.Thread(target=listing)
            other.start()
            assert not listed.wait(1.0)
            assert hsm.pin_status(USER_PIN).logged_in
            hsm.select()
        until(listed.is_set)
        other.join()


def test_a_card_that_another_program_reset_is_used_again(reader: Reader, pcsc: Pcsc) -> None:
    with pcsc.connect(name_of(pcsc)) as card:
        reset_card(reader.provider, reader.pcscd.log.parent)
        with card.transaction():
            assert SmartCardHsm(card.transmit).select().version == (3, 5)


def test_a_removed_card_is_told(reader: Reader, pcsc: Pcsc) -> None:
    with pcsc.connect(name_of(pcsc)) as card, card.transaction():
        hsm = SmartCardHsm(card.transmit)
        hsm.select()
        reader.unplug()
        until(lambda: not pcsc.readers()[0].has_card)
        with pytest.raises(PcscError) as failed:
            hsm.pin_status(USER_PIN)
        assert failed.value.call == "SCardTransmit"
    with pytest.raises(PcscError):
        pcsc.connect(pcsc.reader_names()[0])


KILLED = """
import os, signal, sys
from hsmagent.schsm.card import SmartCardHsm
from hsmagent.worker.pcsc import Pcsc
pcsc = Pcsc()
card = pcsc.connect(pcsc.reader_names()[0])
with card.transaction():
    hsm = SmartCardHsm(card.transmit)
    hsm.select()
    hsm.verify(bytearray(sys.argv[1].encode()))
    assert hsm.pin_status(0x81).logged_in
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_in_a_transaction_leaves_no_login(reader: Reader, pcsc: Pcsc) -> None:
    subprocess.run([sys.executable, "-c", KILLED, DEFAULT_PIN], check=False)
    assert reader.card.user is not None
    assert reader.card.user.presented == 1
    until(lambda: not reader.card.logged_in)
    with pcsc.connect(name_of(pcsc)) as card, card.transaction(), pytest.raises(CardError):
        SmartCardHsm(card.transmit).wrap(1)
