import pytest

from hsmagent.config.duration import LONGEST, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", 0), ("90s", 90), ("1m", 60), ("1h30m", 5400), ("2w", 1209600), ("1d1d", 172800)],
)
def test_numbers_with_units_add_up(text: str, expected: int) -> None:
    assert seconds(text) == expected


def test_the_longest() -> None:
    assert seconds(f"{LONGEST}s") == LONGEST
    with pytest.raises(ValueError, match="no duration"):
        seconds(f"{LONGEST + 1}s")


@pytest.mark.parametrize(
    "text", ["", "90", "1h30", "s", "1x", "-1s", "1.5h", "1 h", "²s", "1H", "9" * 5000 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds(text)
