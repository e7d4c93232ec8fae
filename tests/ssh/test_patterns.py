import pytest

from hsmagent.ssh.patterns import matches, matches_list


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("", "", True),
        ("", "*", True),
        ("a", "", False),
        ("alice", "al*", True),
        ("alice", "*ce", True),
        ("alice", "a*i*e", True),
        ("alice", "a?ice", True),
        ("alice", "a?", False),
        ("alice", "[a]lice", False),
        ("/usr/lib/x/y.so", "/usr/lib*/*", True),
        ("/usr/libx", "/usr/lib*/*", False),
        ("ab", "a*?", True),
        ("a", "a*?", False),
    ],
)
def test_patterns(name: str, pattern: str, fits: bool) -> None:
    assert matches(name, pattern) is fits


def test_a_pattern_cannot_take_for_ever() -> None:
    assert not matches("a" * 5000, "a*" * 500 + "b")


def test_a_negated_pattern_wins() -> None:
    assert matches_list("/lib/a", ("!/lib/b*", "/lib/*"))
    assert not matches_list("/lib/b", ("/lib/*", "!/lib/b*"))
    assert not matches_list("/lib/c", ("!/lib/b*",))
