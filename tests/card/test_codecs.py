import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.parts.card.apdu import Command, parse
from tests.parts.card.card import AID, Card
from tests.parts.card.curves import CURVES, Curve
from tests.parts.card.tlv import integer, tlv, walk


@pytest.mark.parametrize(
    ("raw", "command"),
    [
        ("00A40000", Command(0, 0xA4, 0, 0)),
        ("0084000008", Command(0, 0x84, 0, 0, b"", 8)),
        ("0084000000", Command(0, 0x84, 0, 0, b"", 256)),
        ("00840000000400", Command(0, 0x84, 0, 0, b"", 0x400)),
        ("00840000000000", Command(0, 0x84, 0, 0, b"", 0x10000)),
        ("00A40000022F02", Command(0, 0xA4, 0, 0, b"\x2f\x02")),
        ("00A40000022F0200", Command(0, 0xA4, 0, 0, b"\x2f\x02", 256)),
        ("00A400000000022F02", Command(0, 0xA4, 0, 0, b"\x2f\x02")),
        ("00A400000000022F020000", Command(0, 0xA4, 0, 0, b"\x2f\x02", 0x10000)),
    ],
)
def test_parse_every_case(raw: str, command: Command) -> None:
    assert parse(bytes.fromhex(raw)) == command


@given(st.binary(max_size=300))
def test_the_card_answers_anything(raw: bytes) -> None:
    card = Card()
    card.transmit(bytes.fromhex("00A404000B") + AID)
    assert len(card.transmit(raw)) >= 2


@given(st.lists(st.tuples(st.sampled_from([0x30, 0x5F29, 0x7F49]), st.binary(max_size=400))))
def test_tlv_round_trip(objects: list[tuple[int, bytes]]) -> None:
    assert list(walk(b"".join(tlv(tag, value) for tag, value in objects))) == objects


def test_integers_are_positive() -> None:
    assert integer(0) == b"\x02\x01\x00"
    assert integer(128) == b"\x02\x02\x00\x80"


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.named.name)
def test_curves_have_the_right_parameters(curve: Curve) -> None:
    point = ec.derive_private_key(1, curve.named).public_key().public_numbers()
    assert curve.g == b"\x04" + point.x.to_bytes(curve.size, "big") + point.y.to_bytes(
        curve.size, "big"
    )
    assert (point.y**2 - point.x**3 - curve.a * point.x - curve.b) % curve.p == 0
    last = ec.derive_private_key(curve.n - 1, curve.named).public_key().public_numbers()
    assert (last.x, last.y) == (point.x, curve.p - point.y)
