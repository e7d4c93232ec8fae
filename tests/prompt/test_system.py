"""The system prompter's client against a prompter that misbehaves by script."""

import asyncio
from dataclasses import replace

import pytest

from hsmagent.bus import Bus, BusError, errors
from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.prompt import words
from hsmagent.prompt.base import Answer
from hsmagent.prompt.system import CALLBACK, SystemPrompter, Timeouts
from tests.parts.desktop import prompter_fake as fake
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.prompter_fake import FakePrompter
from tests.parts.until import async_until
from tests.parts.values import STATUS
from tests.prompt.dialogs import TEXT, FakeDialog

QUICK = Timeouts(call=1, turn=1, answer=1)


@pytest.fixture
def prompter(bus: Bus) -> SystemPrompter:
    return SystemPrompter(bus, Timeouts(call=5, turn=5, answer=5))


async def fake_with(bus: Bus, *script: str | bytes, turn: bool = True) -> FakePrompter:
    prompter = FakePrompter(bus, list(script), turn)
    await prompter.serve()
    return prompter


async def test_the_right_pin(other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog) -> None:
    there = await fake_with(other_bus, b"123456")
    await prompter.ask_pin(dialog)
    assert dialog.pins == [b"123456"]
    assert there.kinds == ["password"]
    assert there.shown == [
        {
            "title": TEXT.title,
            "message": TEXT.message,
            "description": TEXT.description,
            "warning": "",
            "continue-label": "Unlock",
            "cancel-label": "Cancel",
        }
    ]
    assert there.stopped == [path for _, path in there.callbacks]


async def test_a_wrong_pin_is_asked_again_in_the_same_conversation(
    other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog
) -> None:
    there = await fake_with(other_bus, b"1", b"", b"123456")
    await prompter.ask_pin(dialog)
    assert dialog.answers == [Answer.AGAIN, Answer.AGAIN, Answer.DONE]
    assert dialog.pins == [b"1", b"123456"]
    assert [shown["warning"] for shown in there.shown] == [
        "",
        "Wrong PIN. Tries left: 2.",
        "The PIN is empty.",
    ]
    assert len(there.callbacks) == 1


async def test_stop_closes_the_dialog(other_bus: Bus, prompter: SystemPrompter) -> None:
    there = await fake_with(other_bus, b"1")
    await prompter.ask_pin(FakeDialog(tries=1))
    assert there.stopped


async def test_cancel(other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog) -> None:
    await fake_with(other_bus, fake.NO)
    with pytest.raises(Cancelled):
        await prompter.ask_pin(dialog)
    assert not dialog.pins


async def test_cancel_while_the_pin_is_tried(
    other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog
) -> None:
    there = await fake_with(other_bus, b"1")

    class Slow(FakeDialog):
        async def submit(self, pin: bytearray) -> Answer:
            await there.done(*there.callbacks[0])
            return await super().submit(pin)

    slow = Slow()
    with pytest.raises(Cancelled):
        await prompter.ask_pin(slow)
    assert slow.pins == [b"1"]


async def test_an_answer_given_twice_counts_once(other_bus: Bus, prompter: SystemPrompter) -> None:
    there = await fake_with(other_bus, b"1", b"123456")

    class Twice(FakeDialog):
        async def submit(self, pin: bytearray) -> Answer:
            if not self.pins:
                await there.ready(*there.callbacks[0], "yes", there.said)
            return await super().submit(pin)

    twice = Twice()
    await prompter.ask_pin(twice)
    assert twice.pins == [b"1", b"123456"]


async def test_confirm(other_bus: Bus, prompter: SystemPrompter) -> None:
    there = await fake_with(other_bus, b"", fake.NO)
    assert await prompter.confirm(TEXT) is True
    assert await prompter.confirm(TEXT) is False
    assert there.kinds == ["confirm", "confirm"]


async def test_each_conversation_has_a_path_of_its_own(
    other_bus: Bus, prompter: SystemPrompter
) -> None:
    there = await fake_with(other_bus, b"", b"")
    await prompter.confirm(TEXT)
    await prompter.confirm(TEXT)
    paths = [path for _, path in there.callbacks]
    assert len(set(paths)) == 2
    assert all(len(path.rpartition("/")[2]) == 32 for path in paths)


async def test_a_notice_stays_until_it_is_cancelled(
    other_bus: Bus, prompter: SystemPrompter
) -> None:
    there = await fake_with(other_bus, fake.HANG)
    notice = asyncio.create_task(prompter.notice(TEXT))
    await async_until(lambda: there.shown)
    notice.cancel()
    await asyncio.wait([notice])
    assert there.stopped


async def test_the_buttons_of_a_notice(other_bus: Bus, prompter: SystemPrompter) -> None:
    """The first hides it, the second declines what it is about; neither says "Continue"."""
    there = await fake_with(other_bus, b"", fake.NO)
    notice = words.use_pin_pad(STATUS, [])
    await prompter.notice(notice)
    with pytest.raises(Cancelled):
        await prompter.notice(notice)
    for shown in there.shown:
        assert (shown["continue-label"], shown["cancel-label"]) == ("Hide", "Cancel")


async def test_a_stranger_is_refused(
    private: PrivateBus, bus: Bus, other_bus: Bus, prompter: SystemPrompter
) -> None:
    there = await fake_with(other_bus, fake.HANG)
    asking = asyncio.create_task(prompter.confirm(TEXT))
    await async_until(lambda: there.shown)
    _, path = there.callbacks[0]
    # The stranger even knows the path: here it is our own connection.
    for member, signature, body in (
        ("PromptReady", "sa{sv}s", ["yes", {}, ""]),
        ("PromptDone", "", []),
    ):
        with pytest.raises(BusError) as caught:
            await bus.call(bus.unique_name, path, CALLBACK, member, signature, body)
        assert caught.value.name == errors.ACCESS_DENIED
    assert not asking.done()
    await there.say_no(*there.callbacks[0])
    assert await asking is False


async def test_other_calls_of_the_prompter_are_unknown(
    other_bus: Bus, prompter: SystemPrompter
) -> None:
    there = await fake_with(other_bus, fake.HANG)
    asking = asyncio.create_task(prompter.confirm(TEXT))
    await async_until(lambda: there.shown)
    client, path = there.callbacks[0]
    for member, signature in (("PromptReady", "s"), ("PromptDone", "s"), ("Other", "s")):
        with pytest.raises(BusError) as caught:
            await other_bus.call(client, path, CALLBACK, member, signature, ["yes"])
        assert caught.value.name == errors.UNKNOWN_METHOD
    await there.ready(client, path, "yes", "")
    assert await asking is True


@pytest.mark.parametrize("act", [fake.GARBAGE, fake.ANOTHER_KEY, fake.REFUSE, fake.LEAVE])
async def test_a_prompter_that_fails_is_unavailable(
    other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog, act: str
) -> None:
    await fake_with(other_bus, act)
    with pytest.raises(Unavailable):
        await prompter.ask_pin(dialog)
    assert not dialog.pins


async def test_a_prompter_that_does_not_answer_a_call_is_unavailable(
    bus: Bus, other_bus: Bus, dialog: FakeDialog
) -> None:
    await fake_with(other_bus, fake.MUTE)
    prompter = SystemPrompter(bus, replace(QUICK, call=0.2))
    with pytest.raises(Unavailable, match="did not answer"):
        await prompter.ask_pin(dialog)


async def test_nobody_answers(bus: Bus, other_bus: Bus, dialog: FakeDialog) -> None:
    there = await fake_with(other_bus, fake.HANG)
    with pytest.raises(TimedOut):
        await SystemPrompter(bus, replace(QUICK, answer=0.1)).ask_pin(dialog)
    assert there.stopped
    # A late answer finds nobody, and nothing breaks.
    with pytest.raises(BusError) as caught:
        await there.ready(*there.callbacks[0], "yes", "")
    assert caught.value.name == errors.UNKNOWN_OBJECT


async def test_no_turn_comes(bus: Bus, other_bus: Bus, dialog: FakeDialog) -> None:
    there = await fake_with(other_bus, turn=False)
    with pytest.raises(TimedOut, match="busy"):
        await SystemPrompter(bus, replace(QUICK, turn=0.1)).ask_pin(dialog)
    assert there.stopped


async def test_there_is_no_prompter(bus: Bus, dialog: FakeDialog) -> None:
    with pytest.raises(Unavailable):
        await SystemPrompter(bus, QUICK).ask_pin(dialog)


async def test_there_is_no_bus(dialog: FakeDialog) -> None:
    with pytest.raises(Unavailable, match="there is no session bus"):
        await SystemPrompter(Bus(lambda: ""), QUICK).ask_pin(dialog)


async def test_the_bus_dies_under_the_dialog(
    private: PrivateBus, other_bus: Bus, prompter: SystemPrompter, dialog: FakeDialog
) -> None:
    there = await fake_with(other_bus, fake.HANG)
    asking = asyncio.create_task(prompter.ask_pin(dialog))
    await async_until(lambda: there.shown)
    private.stop()
    with pytest.raises(Unavailable):
        await asking


async def test_the_bus_hangs_under_the_dialog(
    private: PrivateBus, bus: Bus, other_bus: Bus, dialog: FakeDialog
) -> None:
    there = await fake_with(other_bus, fake.HANG)
    prompter = SystemPrompter(bus, Timeouts(call=0.2, turn=1, answer=0.2))
    asking = asyncio.create_task(prompter.ask_pin(dialog))
    await async_until(lambda: there.shown)
    with private.frozen(), pytest.raises((TimedOut, Unavailable)):
        await asking
