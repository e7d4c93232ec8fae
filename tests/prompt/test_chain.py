"""The chain: who asks, one at a time, and when nobody is asked again."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from hsmagent.errors import Cancelled, Refused, TimedOut, Unavailable
from hsmagent.prompt.base import PinDialog, Text
from hsmagent.prompt.chain import DIALOGS, DIALOGS_EACH, DIALOGS_WINDOW, PAUSE, Chain, in_order
from hsmagent.prompt.environment import own_environment
from tests.door.doubles import request
from tests.parts.until import async_until
from tests.prompt.dialogs import TEXT, FakeDialog


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scripted:
    """A prompter that raises or answers what it is told to."""

    name: str = "scripted"
    outcome: Exception | bool | bytes = True
    asked: list[Text] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def ask_pin(self, dialog: PinDialog) -> None:
        await self._note(dialog.text())
        assert isinstance(self.outcome, bytes)
        await dialog.submit(bytearray(self.outcome))

    async def confirm(self, text: Text) -> bool:
        await self._note(text)
        assert isinstance(self.outcome, bool)
        return self.outcome

    async def notice(self, text: Text) -> None:
        await self._note(text)

    async def _note(self, text: Text) -> None:
        self.asked.append(text)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome


def chain_of(*prompters: Scripted, clock: Clock | None = None) -> Chain:
    return Chain(prompters, own_environment, clock or Clock())


async def test_only_what_is_unavailable_falls_through(
    dialog: FakeDialog, caplog: pytest.LogCaptureFixture
) -> None:
    absent, able = Scripted("absent", Unavailable("no bus")), Scripted("able", b"123456")
    await chain_of(absent, able, Scripted("spare")).ask_pin(dialog)
    assert dialog.pins == [b"123456"]
    assert "absent: no bus" in caplog.text


@pytest.mark.parametrize("outcome", [Cancelled("no"), TimedOut("nobody"), Refused("locked")])
async def test_an_answer_ends_it(dialog: FakeDialog, outcome: Exception) -> None:
    spare = Scripted("spare", b"123456")
    with pytest.raises(type(outcome)):
        await chain_of(Scripted("first", outcome), spare).ask_pin(dialog)
    assert not spare.asked


async def test_a_no_ends_it() -> None:
    spare = Scripted("spare")
    assert await chain_of(Scripted("first", outcome=False), spare).confirm(TEXT) is False
    assert not spare.asked


async def test_nobody_can_ask(dialog: FakeDialog) -> None:
    absent = Scripted(outcome=Unavailable("no bus")), Scripted(outcome=Unavailable("no display"))
    with pytest.raises(Unavailable, match="no bus; no display"):
        await chain_of(*absent).ask_pin(dialog)
    with pytest.raises(Unavailable, match="configured"):
        await chain_of().notice(TEXT)


async def test_one_dialog_at_a_time() -> None:
    prompter = Scripted(gate=asyncio.Event())
    chain = chain_of(prompter)
    texts = [replace(TEXT, message=f"Question {number}") for number in range(3)]
    tasks = [asyncio.create_task(chain.confirm(text)) for text in texts]
    await async_until(lambda: prompter.asked)
    await asyncio.sleep(0)
    assert prompter.asked == texts[:1]
    tasks[1].cancel()  # who gives up waiting leaves the queue
    assert prompter.gate is not None
    prompter.gate.set()
    assert await tasks[0]
    assert await tasks[2]
    assert prompter.asked == [texts[0], texts[2]]


async def test_a_pause_after_a_cancel(dialog: FakeDialog) -> None:
    clock = Clock()
    prompter = Scripted(outcome=Cancelled("closed"))
    chain = chain_of(prompter, clock=clock)
    for _ in range(3):
        with pytest.raises(Cancelled):
            await chain.ask_pin(dialog)
    assert len(prompter.asked) == 1
    clock.now += PAUSE - 0.1
    with pytest.raises(Cancelled):
        await chain.ask_pin(dialog)
    assert len(prompter.asked) == 1
    clock.now += 0.1
    with pytest.raises(Cancelled):
        await chain.ask_pin(dialog)
    assert len(prompter.asked) == 2


async def test_a_notice_that_was_declined_is_not_shown_again_at_once() -> None:
    clock = Clock()
    prompter = Scripted(outcome=Cancelled("closed"))
    chain = chain_of(prompter, clock=clock)
    for _ in range(2):
        with pytest.raises(Cancelled):
            await chain.notice(TEXT)
    assert len(prompter.asked) == 1


async def test_the_pause_is_for_the_same_program_and_question() -> None:
    prompter = Scripted(outcome=False)
    chain = chain_of(prompter)
    another_program = replace(TEXT, description="scp wants to log in to host as alice\nKey: ssh")
    another_key = replace(TEXT, description=TEXT.description.partition("\n")[0] + "\nKey: other")
    another_question = replace(TEXT, message="Allow the use of a key?")
    for text in (TEXT, another_program, another_key, another_question, TEXT):
        assert await chain.confirm(text) is False
    assert prompter.asked == [TEXT, another_program, another_question]


async def test_those_that_wait_are_not_asked_what_was_declined() -> None:
    prompter = Scripted(outcome=False, gate=asyncio.Event())
    chain = chain_of(prompter)
    tasks = [asyncio.create_task(chain.confirm(TEXT)) for _ in range(5)]
    await async_until(lambda: prompter.asked)
    assert prompter.gate is not None
    prompter.gate.set()
    assert await asyncio.gather(*tasks) == [False] * 5
    assert len(prompter.asked) == 1


async def test_no_pause_after_a_yes_or_a_timeout() -> None:
    yes = Scripted()
    chain = chain_of(yes)
    assert await chain.confirm(TEXT)
    assert await chain.confirm(TEXT)
    late = Scripted(outcome=TimedOut("nobody"))
    chain = chain_of(late)
    for _ in range(2):
        with pytest.raises(TimedOut):
            await chain.confirm(TEXT)
    assert len(late.asked) == 2


async def test_what_is_remembered_of_declined_dialogs_is_bounded() -> None:
    clock = Clock()
    chain = chain_of(Scripted(outcome=False), clock=clock)
    for number in range(300):
        clock.now += DIALOGS_WINDOW
        await chain.confirm(replace(TEXT, message=f"Question {number}"))
    assert len(chain._declined) == 100


async def test_a_rate_limit() -> None:
    clock = Clock()
    prompter = Scripted()
    chain = chain_of(prompter, clock=clock)
    for _ in range(DIALOGS):
        assert await chain.confirm(TEXT)
    with pytest.raises(Refused, match="too many dialogs"):
        await chain.confirm(TEXT)
    assert len(prompter.asked) == DIALOGS
    clock.now += DIALOGS_WINDOW
    assert await chain.confirm(TEXT)


async def test_what_no_prompter_could_show_is_no_dialog(dialog: FakeDialog) -> None:
    prompter = Scripted(outcome=Unavailable("no display"))
    chain = chain_of(prompter)
    asked = replace(TEXT, request=request())
    assert asked.asker
    for _ in range(DIALOGS):
        for question in (chain.confirm(asked), chain.ask_pin(dialog)):
            with pytest.raises(Unavailable):
                await question
    prompter.outcome = True
    for _ in range(DIALOGS_EACH):
        assert await chain.confirm(asked)
    with pytest.raises(Refused, match="too many dialogs"):
        await chain.confirm(asked)
    for _ in range(DIALOGS - DIALOGS_EACH):
        assert await chain.confirm(TEXT)
    with pytest.raises(Refused, match="too many dialogs"):
        await chain.confirm(TEXT)


def test_kde_has_its_own_order() -> None:
    system, pinentry, askpass = Scripted("system"), Scripted("pinentry"), Scripted("askpass")
    default = (system, pinentry, askpass)
    kde = {"XDG_CURRENT_DESKTOP": "KDE"}
    assert in_order(default, {}) == default
    assert in_order(default, kde) == (pinentry, system, askpass)
    chosen = (askpass, system, pinentry)
    assert in_order(chosen, kde) == chosen
