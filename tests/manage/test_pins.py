"""PINs are wiped however a command ends, and so before the next question has failed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pytest

from hsmagent.errors import HsmAgentError
from hsmagent.manage import pins
from hsmagent.manage.place import Place, Token
from hsmagent.model import ModuleSpec
from hsmagent.worker import spec
from hsmagent.worker.messages import TokenInfo

INFO = TokenInfo(
    b"work",
    b"maker",
    b"model",
    b"123",
    spec.CKF_TOKEN_INITIALIZED,
    pin_min=4,
    pin_max=8,
    complete=True,
)


@dataclass
class _Hasty:
    """A person who answers the first question, and gives up at the second. A `Person`."""

    given: list[bytearray] = field(default_factory=list)

    def secret(self, question: str, *, again: str = "") -> bytearray:
        if self.given:
            raise HsmAgentError(f"{question}, {again}: the two differ")
        self.given.append(bytearray(b"2468"))
        return self.given[0]

    def agrees(self, warning: str, word: str) -> bool:
        raise AssertionError((warning, word))

    def asks(self, question: str) -> str:
        raise AssertionError(question)

    def say(self, text: str) -> None:
        """Hear nothing."""

    def shows_once(self, text: str) -> None:
        raise AssertionError(text)

    def progress(self, what: str) -> AbstractContextManager[Callable[[float | None], None]]:
        raise AssertionError(what)


class _Nobody:
    """No daemon. A `Beside`."""

    def foretell(self, token: Token) -> None:
        """Say nothing."""

    def let_go(self, token: Token) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class _OneToken(Place):
    async def token(self, *, blank: bool = False) -> Token:
        assert not blank
        return Token(ModuleSpec("/no/module.so"), 0, INFO)


@pytest.mark.parametrize("command", [pins.unblock, pins.change_so_pin, pins.change_pin])
def test_the_old_pin_is_wiped_when_no_new_one_comes(
    command: Callable[[Place], Awaitable[None]],
) -> None:
    person = _Hasty()
    place = _OneToken((), person, _Nobody())

    async def run() -> None:
        await command(place)

    with pytest.raises(HsmAgentError, match="the two differ"):
        asyncio.run(run())
    assert person.given == [bytearray(4)]
