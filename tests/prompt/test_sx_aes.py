"""sx-aes-1 against what gcr-prompter really said, and against a peer written anew."""

import base64
import re
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.prompt.sx_aes import PRIME, Exchange
from tests.parts.desktop.prompter_fake import PeerExchange

# Recorded from gcr-prompter 3.41, which answered to the public key of EXPONENT.
EXPONENT = 1 << 511 | 0x1234567890ABCDEF
PUBLIC = (
    "K2YRayyzpldpx0menfQyyAFr8XOY7xTqW5TlMgIUdXfQ5TTefCIpStP6aISOym5y5T41ndjciXfilL0evDwTn9m83XOW"
    "Ok0JEWCYHUkIAdNJWmAetbVI17AzvVvRFHXhCq3kLbT9V1OC270UD4LExns1NLcDFT6gxZ8P1VLICFoOlbUoXtAt3Egd"
    "/UTarYzegDyAwSjN12HhMh9P1+KiSE8zLh3Fh7kaEUVga7EUAa5Y38DxoZ52tQzigvkhVIN2"
)
GREETING = f"[sx-aes-1]\npublic={PUBLIC}\n"
RECORDED = [
    (b"1111", "secret=KgmoLWtlXt+sEC8b3cVAZQ==\niv=Diym4P2AsoZLzHBhARhbiA==\n"),
    (b"123456", "secret=xEKqU09mdgi9Ue7v4KogLg==\niv=5AS7bs7qWwEdHLmINsj1SQ==\n"),
]


@pytest.mark.parametrize(("secret", "fields"), RECORDED)
def test_what_gcr_prompter_sealed_is_opened(secret: bytes, fields: str) -> None:
    exchange = Exchange(GREETING, lambda: EXPONENT)
    assert exchange.open(GREETING + fields) == secret


def test_the_prime_is_that_of_rfc_3526() -> None:
    # 2^1536 - 2^1472 - 1 + 2^64 * ([2^1406 pi] + 741804); pi here by Machin's formula.
    unity = 1 << 1600

    def arctan_inverse(x: int) -> int:
        total = term = unity // x
        for n in count(3, 2):
            term //= -x * x
            if term in {0, -1}:
                return total
            total += term // n
        raise AssertionError

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    digits = pi >> (1600 - 1406)
    assert 2**1536 - 2**1472 - 1 + 2**64 * (digits + 741804) == PRIME


@given(st.binary(max_size=100))
def test_secrets_travel(secret: bytes) -> None:
    peer = PeerExchange()
    exchange = Exchange(peer.greeting)
    assert exchange.open(peer.seal(secret, exchange.message)) == secret
    assert exchange.open(peer.seal(secret, exchange.message, padded=True)) == secret


def test_a_shared_secret_with_leading_zeros_is_not_used() -> None:
    """Old and new gcr would derive different keys from it."""
    peer = PeerExchange(5)
    public = pow(2, 5, PRIME)
    short = next(x for x in range(2, 9999) if pow(public, x, PRIME) >> 1528 == 0)
    exponents = iter([short, EXPONENT])
    exchange = Exchange(peer.greeting, lambda: next(exponents))
    assert next(exponents, None) is None
    for padded in (False, True):
        assert exchange.open(peer.seal(b"1234", exchange.message, padded=padded)) == b"1234"


def test_our_public_key_has_no_leading_zeros_and_stays() -> None:
    exchange = Exchange(PeerExchange().greeting, lambda: 2)
    assert exchange.message == "[sx-aes-1]\npublic=BA==\n"  # 2 squared
    assert exchange.message == exchange.message


@pytest.mark.parametrize(
    "number", [0, 1, PRIME - 1, PRIME, PRIME + 5], ids=["0", "1", "p-1", "p", "p+5"]
)
def test_a_public_key_that_gives_the_secret_away_is_refused(number: int) -> None:
    public = base64.b64encode(number.to_bytes(193, "big")).decode()
    with pytest.raises(ProtocolError, match="out of range"):
        Exchange(f"[sx-aes-1]\npublic={public}\n")


@pytest.mark.parametrize(
    "text", ["", "\n", "[other]\npublic=Ag==\n", "[sx-aes-1]", "[sx-aes-1]\npublic=%\n"]
)
def test_a_broken_greeting_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        Exchange(text)


@pytest.mark.parametrize(
    "change",
    [
        ("secret=.*", ""),
        ("iv=.*", ""),
        ("secret=.*", "secret=AAAA"),
        ("secret=.*", "secret="),
        ("iv=.*", "iv=AAAA"),
        ("iv=.*", "iv=" + "A" * 22 + "=="),
        ("public=.*", "public=BA=="),
        (r"\[sx-aes-1\]", "[sx-aes-2]"),
    ],
)
def test_a_broken_answer_is_refused(change: tuple[str, str]) -> None:
    exchange = Exchange(GREETING, lambda: EXPONENT)
    text = re.sub(*change, GREETING + RECORDED[0][1])
    with pytest.raises(ProtocolError) as caught:
        exchange.open(text)
    assert "1111" not in str(caught.value)


@given(st.text(max_size=300))
def test_garbage_is_refused_plainly(text: str) -> None:
    with pytest.raises(ProtocolError):
        Exchange("[sx-aes-1]\n" + text)
