"""PINs that no person typed for that purpose: guesses by `ssh-add -s`, and a prompter's parrot."""

import asyncio
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace

import pytest

from hsmagent.daemon.providers import TokenProviders
from hsmagent.door.dialog import Dialog
from hsmagent.errors import HsmAgentError, PinIncorrect
from hsmagent.model import PinState
from hsmagent.prompt.base import Answer
from tests.attacks.conftest import Connect
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.hostile import string
from tests.parts.token.card import Reader, inserted
from tests.parts.token.card import furnished as card
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.values import STATUS, TOKEN

FAILURE, SUCCESS = b"\x05", b"\x06"


def guess(provider: str, pin: str) -> bytes:
    return b"\x14" + string(provider.encode()) + string(pin.encode())


def test_a_card_with_three_tries_loses_one_at_most(start: Start, connect: Connect) -> None:
    with inserted(card()) as reader:
        agent = start(reader.provider.config())
        client = connect(agent)
        [token] = agent.json("status")["tokens"]
        for number in range(6):
            assert client.ask(guess(token["uri"], f"{number:06}")) == FAILURE
        assert presented(reader) == 1
        assert "gives a PIN for the provider" in agent.logged()


def presented(reader: Reader) -> int:
    """How often somebody gave the card a PIN."""
    assert reader.card.user is not None
    return reader.card.user.presented


def test_a_token_that_tells_of_a_wrong_pin_gets_no_other(
    start: Start, connect: Connect, furnished: SoftHsm
) -> None:
    agent = start(module_config(furnished))
    client = connect(agent)
    for number in range(60):
        assert client.ask(guess("pkcs11:token=work", f"{number:08}")) == FAILURE
    assert client.ask(guess("pkcs11:token=work", PIN)) == FAILURE, "no guess was the right one"
    assert "add it without a PIN" in agent.logged()
    assert agent.unlock(PIN).returncode == 0, "a person may, of course"


class Guessed:
    """Providers over tokens of a TPM that takes its time to say no to a PIN."""

    def __init__(self, *names: str) -> None:
        self.tried: list[bytes] = []
        module = "/usr/lib/libtpm2_pkcs11.so"
        here = [replace(STATUS, id=replace(TOKEN, module=module, label=name)) for name in names]

        async def log_in(_token: object, pin: bytearray, *_at_worst: object) -> None:
            self.tried.append(bytes(pin))
            await asyncio.sleep(0.001)
            raise PinIncorrect("wrong PIN")

        async def looked() -> None: ...

        tokens = SimpleNamespace(
            modules=lambda: [SimpleNamespace(path=module)], statuses=lambda: here, looked=looked
        )
        clock = () if "clock" not in signature(TokenProviders).parameters else (lambda: 0.0,)
        self._providers = TokenProviders(tokens, lambda: {module}, log_in, *clock)  # type: ignore[arg-type]

    async def guess(self, name: str, number: int) -> None:
        with pytest.raises(HsmAgentError):
            await self._providers.add(f"pkcs11:token={name}", bytearray(b"%06d" % number))


async def test_a_token_that_tells_nothing_gets_few() -> None:
    """As a TPM, which counts for all its tokens together."""
    tpm = Guessed("a", "b")
    for number in range(60):
        await tpm.guess("ab"[number % 2], number)
    assert len(tpm.tried) <= 3


async def test_many_guesses_at_once_are_no_more() -> None:
    tpm = Guessed("a")
    await asyncio.gather(*(tpm.guess("a", number) for number in range(60)))
    assert len(tpm.tried) <= 3


def test_the_right_pin_logs_in(start: Start, connect: Connect, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished))
    assert connect(agent).ask(guess("pkcs11:token=work", PIN)) == SUCCESS
    [token] = agent.json("status")["tokens"]
    assert token["logged_in"]


async def test_a_pin_that_was_just_refused_is_not_tried_again() -> None:
    """Programs that stand in for ssh-askpass print the same line for ever."""
    tried: list[bytes] = []

    async def attempt(pin: bytearray, _at_worst: PinState) -> None:
        tried.append(bytes(pin))
        raise PinIncorrect("wrong PIN")

    dialog = Dialog(lambda: STATUS, list, attempt)
    answers = [await dialog.submit(bytearray(b"123456")) for _ in range(3)]
    assert tried == [b"123456"]
    assert answers == [Answer.AGAIN, Answer.AGAIN, Answer.STOP]
