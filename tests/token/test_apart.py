import pytest

from hsmagent.model import TokenId
from hsmagent.token.apart import told_apart

LABEL = "SmartCard-HSM (UserPIN)"


def card(serial: str = "1", model: str = "card", maker: str = "", module: str = "a.so") -> TokenId:
    return TokenId(module, LABEL, serial, model, maker)


@pytest.mark.parametrize(
    ("one", "other", "readers", "told"),
    [
        (card("1"), card("2"), ("left", "right"), ["1", "2"]),
        (card(model="old"), card(model="new"), ("left", "right"), ["old", "new"]),
        (card(), card(module="b.so"), ("left", "right"), ["left", "right"]),
        (card(maker="x"), card(maker="y"), ("left", "left"), ["x", "y"]),
        (card(), card(module="b.so"), ("left", ""), ["a.so", "b.so"]),
        (card("", "m"), card("2", "m", "x"), ("", ""), ["m, a.so", "2, m, x, a.so"]),
    ],
)
def test_the_first_that_differs_tells_them_apart(
    one: TokenId, other: TokenId, readers: tuple[str, str], told: list[str]
) -> None:
    found = told_apart(dict(zip((one, other), readers, strict=True)))
    assert [found[one], found[other]] == told


def test_nothing_is_told_of_a_token_whose_label_no_other_has() -> None:
    other = TokenId("a.so", "work", "1", "card")
    assert told_apart({card(): "left", other: "right"}) == {card(): "", other: ""}
