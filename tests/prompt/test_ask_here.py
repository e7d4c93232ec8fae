"""The prompter that asks in terminals, with a place whose person the test is."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hsmagent.door.gate import Gate
from hsmagent.door.policy import Policy
from hsmagent.errors import Cancelled, Refused, TimedOut, Unavailable
from hsmagent.model import Request, Scheme
from hsmagent.prompt.ask_here import AskHere, Place
from tests.door.doubles import FakeSigner, FakeToken, request
from tests.parts.until import async_until
from tests.parts.values import KEY
from tests.prompt.dialogs import TEXT, FakeDialog

ASKED = replace(TEXT, request=request())


class Dialog(FakeDialog):
    """One whose text says who asks."""

    def text(self) -> Any:
        return replace(super().text(), request=request())


class Person:
    """A terminal, and what is said to it."""

    def __init__(
        self, prompter: AskHere, name: str, serves: Callable[[Request], bool] = lambda _: True
    ) -> None:
        self.prompter = prompter
        self.said: list[dict[str, Any]] = []
        self.place: Place = prompter.open(name, serves, self.said.append)

    async def question(self) -> dict[str, Any]:
        """Wait for the next question; return it."""
        await async_until(lambda: self.said and "ask" in self.said[-1])
        asked: dict[str, Any] = self.said[-1]["ask"]
        return asked

    async def answer(self, pin: bytes | None) -> None:
        question = await self.question()
        self.said.append({})
        self.place.answered(question["number"], None if pin is None else bytearray(pin))


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def prompter(asked: list[str]) -> AskHere:
    return AskHere(lambda: 20.0, lambda _request, where: asked.append(where))


async def test_nobody_is_there(prompter: AskHere) -> None:
    with pytest.raises(Unavailable, match="nobody has run `hsmagent ask-here`"):
        await prompter.confirm(ASKED)


async def test_a_pin_in_the_newest_terminal(prompter: AskHere, asked: list[str]) -> None:
    old, new = Person(prompter, "old"), Person(prompter, "new")
    dialog = Dialog()
    asking = asyncio.create_task(prompter.ask_pin(dialog))
    await new.answer(b"000000")
    assert (await new.question())["warning"].startswith("Wrong PIN")
    await new.answer(b"123456")
    await asking
    assert new.said[-1] == {"over": "done"}
    assert dialog.pins == [b"000000", b"123456"]
    assert asked == ["new"]  # once for each question
    assert old.said == []


async def test_a_place_that_may_not_be_asked_is_passed_over(prompter: AskHere) -> None:
    other = Person(prompter, "other")
    own = Person(prompter, "own", lambda _: False)
    asking = asyncio.create_task(prompter.confirm(ASKED))
    await other.answer(b"")
    assert await asking
    assert own.said == []
    prompter.close(other.place)
    with pytest.raises(Unavailable, match="own is not to be asked"):
        await prompter.confirm(ASKED)
    with pytest.raises(Unavailable, match="own is not to be asked"):
        await prompter.confirm(TEXT)  # of which nobody knows whose it is


async def test_that_is_looked_at_again_for_each_try(prompter: AskHere) -> None:
    """The request that the next text shows may be another one."""
    serves = True
    person = Person(prompter, "here", lambda _: serves)
    asking = asyncio.create_task(prompter.ask_pin(Dialog()))
    await person.question()
    serves = False
    await person.answer(b"000000")
    with pytest.raises(Unavailable):
        await asking
    assert person.said[-1] == {"over": "gone"}


async def test_a_no_and_no_answer(asked: list[str]) -> None:
    prompter = AskHere(lambda: 0.05, lambda _request, where: asked.append(where))
    person = Person(prompter, "here")
    asking = asyncio.create_task(prompter.ask_pin(Dialog()))
    await person.answer(None)
    with pytest.raises(Cancelled):
        await asking
    assert person.said[-1] == {"over": "no"}
    with pytest.raises(TimedOut):
        await prompter.confirm(ASKED)
    assert person.said[-1] == {"over": "late"}


async def test_an_answer_to_a_former_question_is_none(prompter: AskHere) -> None:
    person = Person(prompter, "here")
    first = asyncio.create_task(prompter.confirm(ASKED))
    number = (await person.question())["number"]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert person.said[-1] == {"over": "gone"}
    second = asyncio.create_task(prompter.ask_pin(Dialog()))
    await person.question()
    late = bytearray(b"123456")
    person.place.answered(number, late)
    assert not any(late)
    await asyncio.sleep(0)
    assert not second.done()
    await person.answer(b"123456")
    await second


async def test_who_hangs_up_leaves_the_question_to_the_next(prompter: AskHere) -> None:
    other, leaves = Person(prompter, "other"), Person(prompter, "leaves")
    asking = asyncio.create_task(prompter.confirm(ASKED))
    await leaves.question()
    prompter.close(leaves.place)
    await other.answer(b"")
    assert await asking
    assert prompter.where() == ["other"]


async def test_a_notice_stands_until_it_is_over(prompter: AskHere, asked: list[str]) -> None:
    person = Person(prompter, "here")
    showing = asyncio.create_task(prompter.notice(ASKED))
    assert (await person.question())["kind"] == "notice"
    showing.cancel()
    await asyncio.gather(showing, return_exceptions=True)
    assert person.said[-1] == {"over": "gone"}
    assert asked == []


async def test_a_pin_that_nobody_waits_for_any_more_is_wiped(prompter: AskHere) -> None:
    person = Person(prompter, "here")
    asking = asyncio.create_task(prompter.ask_pin(Dialog()))
    number = (await person.question())["number"]
    pin = bytearray(b"123456")
    person.place.answered(number, pin)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not any(pin)


@pytest.mark.parametrize("logged_in", [False, True])
async def test_a_locked_screen_takes_questions_back(prompter: AskHere, *, logged_in: bool) -> None:
    """The PIN of a token, and a yes to one use."""
    token = FakeToken()
    token.logged_in = logged_in
    signer = FakeSigner(KEY, token)
    gate = Gate(
        tokens=lambda _: token,
        policy=Policy((), lambda _key, _entry: True, lambda: 0.0),
        prompter=prompter,
        record=lambda _request, _outcome, _reason: None,
        timeout=20.0,
    )
    person = Person(prompter, "here")
    wish = replace(request(), confirm=True)
    waiting = asyncio.create_task(
        gate.perform(wish, lambda pin: signer.sign(Scheme.ECDSA_SHA256, b"data", pin))
    )
    await person.question()
    gate.close("the screen is locked")
    with pytest.raises(Refused, match="the screen is locked"):
        await waiting
    await async_until(lambda: person.said[-1] == {"over": "gone"})
