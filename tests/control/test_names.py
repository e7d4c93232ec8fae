"""Tokens by the names that a person gives."""

from dataclasses import replace

import pytest

from hsmagent.control.names import exact_uri, find_token
from hsmagent.errors import TokenGone, UsageError
from hsmagent.model import TokenId

WORK = TokenId("/usr/lib/a.so", "work", "1", "card")
HOME = replace(WORK, label="home", serial="2")
SECOND = replace(WORK, serial="3")
ELSEWHERE = replace(WORK, module="/usr/lib/b&c.so")


@pytest.mark.parametrize("name", ["work", "1", "pkcs11:token=work", "pkcs11:serial=1"])
def test_a_token_has_many_names(name: str) -> None:
    assert find_token(name, [HOME, WORK]) == WORK


def test_no_name_means_the_only_token() -> None:
    assert find_token("", [WORK]) == WORK


@pytest.mark.parametrize(
    ("tokens", "name", "choice"),
    [
        ([HOME, WORK], "", ": home, work"),
        ([WORK, SECOND], "work", r": work \(1\), work \(3\)"),
        ([HOME, WORK], "elsewhere", "present: home, work"),
        (
            [WORK, ELSEWHERE],
            "work",
            r"\?module-path=/usr/lib/a.so, .*\?module-path=/usr/lib/b%26c.so",
        ),
    ],
)
def test_an_error_names_what_tells_the_tokens_apart(
    tokens: list[TokenId], name: str, choice: str
) -> None:
    with pytest.raises(UsageError, match=choice):
        find_token(name, tokens)


@pytest.mark.parametrize("name", ["", "work"])
def test_no_token_at_all_is_no_wrong_usage(name: str) -> None:
    with pytest.raises(TokenGone, match="no token is present"):
        find_token(name, [])


def test_one_token_in_two_modules_has_an_exact_name() -> None:
    for token in (WORK, ELSEWHERE):
        assert find_token(exact_uri(token), [WORK, ELSEWHERE]) == token
