from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.schsm.apdu import Command, split
from tests.parts.token.card.commands import parse

CASES = [
    ("00A40000", Command(0, 0xA4, 0, 0)),
    ("0084000008", Command(0, 0x84, 0, 0, b"", 8)),
    ("0084000000", Command(0, 0x84, 0, 0, b"", 256)),
    ("00840000000400", Command(0, 0x84, 0, 0, b"", 0x400)),
    ("00840000000000", Command(0, 0x84, 0, 0, b"", 0x10000)),
    ("00A40000022F02", Command(0, 0xA4, 0, 0, b"\x2f\x02")),
    ("00A40000022F0200", Command(0, 0xA4, 0, 0, b"\x2f\x02", 256)),
    ("00A40000000100" + "2F" * 256, Command(0, 0xA4, 0, 0, b"\x2f" * 256)),
    ("00A400000000022F020000", Command(0, 0xA4, 0, 0, b"\x2f\x02", 0x10000)),
]


@pytest.mark.parametrize(("raw", "command"), CASES)
def test_every_case_is_written_and_read(raw: str, command: Command) -> None:
    assert command.encode() == bytes.fromhex(raw)
    assert parse(bytes.fromhex(raw)) == command


def test_a_short_command_may_come_in_the_extended_form() -> None:
    raw = bytes.fromhex("00A400000000022F02")
    assert parse(raw) == Command(0, 0xA4, 0, 0, b"\x2f\x02")


def test_a_pin_follows_the_data() -> None:
    pin = bytearray(b"648219")
    assert Command(0, 0x20, 0, 0x81).encode(pin) == bytes.fromhex("0020008106363438323139")


@given(
    st.builds(
        Command,
        *[st.integers(0, 255)] * 4,
        st.binary(max_size=600),
        st.integers(0, 0x10000),
    )
)
def test_round_trip(command: Command) -> None:
    assert parse(command.encode()) == command


@given(st.binary(max_size=300))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    with suppress(ProtocolError):
        parse(raw)


def test_what_no_card_can_take_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Command(0, 0, 0, 0, bytes(0x10000)).encode()


def test_an_answer_is_cut_at_its_status_word() -> None:
    assert split(bytes.fromhex("01029000")) == (b"\x01\x02", 0x9000)
    with pytest.raises(ProtocolError):
        split(b"\x90")
