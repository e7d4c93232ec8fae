"""What a person sees at a terminal while a card is read, makes a key, and a share is made."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hsmagent.schsm.apdu import INS
from tests.parts.desktop.terminal import Terminal
from tests.parts.token.card import Reader
from tests.parts.token.managed import START, Managed

ERASE = "\r\x1b[K"
ROUNDS = 3_000_000  # more than a second


@contextmanager
def typed(made: Managed, *words: str) -> Iterator[Terminal]:
    """Run a command at a terminal."""
    command = [sys.executable, "-c", START, str(made.rounds), *words]
    it = Terminal(command, made.environment | {"TERM": "xterm"})
    try:
        yield it
    finally:
        it.close()


def test_a_slow_card_shows_that_it_is_read_and_makes_a_key(reader: Reader, card: Managed) -> None:
    reader.card.knobs.every = 0.02
    reader.card.knobs.latency[INS.GENERATE_KEY_PAIR] = 2.0
    with typed(card, "key", "new", "p256", "--label", "mine") as it:
        it.wait_for("Reading the tokens of opensc-pkcs11.so ")
        it.wait_for("PIN of ")
        it.type(f"{card.provider.pin}\n")
        it.wait_for("Making the key ━")
        it.wait_for(f"{ERASE}The p256 key “mine” is on ")


def test_the_rounds_of_a_share_show(soft: Managed) -> None:
    made = Managed(soft.provider, soft.folder, ROUNDS)
    with typed(made, "token", "share", "make", str(made.folder / "share")) as it:
        it.wait_for("Password for the share: ")
        it.type("a long password\n")
        it.wait_for("again: ")
        it.type("a long password\n")
        it.wait_for("Protecting the share ━")
        it.wait_for(f"{ERASE}The share is in")


def test_a_pipe_gets_the_sentences_alone(soft: Managed) -> None:
    made = Managed(soft.provider, soft.folder, ROUNDS)
    ran = made("token", "share", "make", "share", secrets=("a long password",))
    assert ran.status == 0
    assert ran.err.startswith("The share is in share.")
    assert "\r" not in ran.err
