import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.schsm.cvc import curve_of
from tests.parts.token.card.card import AID, Card
from tests.parts.token.card.curves import CURVES, Curve


@given(st.binary(max_size=300))
def test_the_card_answers_anything(raw: bytes) -> None:
    card = Card()
    card.transmit(bytes.fromhex("00A404000B") + AID)
    assert len(card.transmit(raw)) >= 2


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.named.name)
def test_curves_have_the_right_parameters(curve: Curve) -> None:
    prime = curve.p.to_bytes(curve.size, "big")
    assert curve_of(prime).name == curve.named.name
    point = ec.derive_private_key(1, curve.named).public_key().public_numbers()
    assert curve.g == b"\x04" + point.x.to_bytes(curve.size, "big") + point.y.to_bytes(
        curve.size, "big"
    )
    assert (point.y**2 - point.x**3 - curve.a * point.x - curve.b) % curve.p == 0
    last = ec.derive_private_key(curve.n - 1, curve.named).public_key().public_numbers()
    assert (last.x, last.y) == (point.x, curve.p - point.y)
