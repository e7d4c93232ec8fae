"""The real gcr-prompter on a private bus, under Xvfb, typed into."""

import asyncio
import os
import signal
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hsmagent.bus import Bus
from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.prompt import words
from hsmagent.prompt.system import NAME, SystemPrompter, Timeouts
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.desktop.joined import joined
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.until import async_until
from tests.parts.values import STATUS, TOKEN
from tests.prompt.dialogs import TEXT, FakeDialog

GCR_PROMPTER = Path("/usr/libexec/gcr-prompter")


@dataclass
class Desk:
    """A desktop with nobody at it but the test."""

    screen: Screen
    private: PrivateBus
    bus: Bus
    prompter: SystemPrompter
    join: Callable[[], Awaitable[Bus]]

    async def window(self, name: str = ".+") -> str:
        return await asyncio.to_thread(self.screen.wait_for_window, name)

    async def empty(self) -> None:
        await asyncio.to_thread(self.screen.wait_until_empty)

    async def answer(self, text: str, key: str, done: Callable[[], object]) -> None:
        """Type and press; again where the dialog was not yet taking keys."""
        while True:
            if text:
                await asyncio.to_thread(self.screen.press, "ctrl+a")
                await asyncio.to_thread(self.screen.type, text)
            await asyncio.to_thread(self.screen.press, key)
            with suppress(TimeoutError):
                return await async_until(done, 3)

    async def prompter_pid(self) -> int:
        dbus = "org.freedesktop.DBus"
        body = await self.bus.call(dbus, "/", dbus, "GetConnectionUnixProcessID", "s", [NAME])
        return int(body[0])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    with screen() as display, private_bus(display.environment) as private:
        private.add_service(NAME, str(GCR_PROMPTER))
        private.start()
        async with AsyncExitStack() as stack:

            async def join() -> Bus:
                return await stack.enter_async_context(joined(private.address))

            bus = await join()
            timeouts = Timeouts(call=20, turn=30, answer=30)
            yield Desk(display, private, bus, SystemPrompter(bus, timeouts), join)


async def test_the_right_pin(desk: Desk, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.window(TEXT.title)
    await desk.answer("123456", "Return", asking.done)
    await asking
    assert dialog.pins == [b"123456"]
    await desk.empty()


async def test_an_empty_then_a_wrong_then_the_right_pin(desk: Desk, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.window()
    for number, typed in enumerate(("", "0000", "123456"), 1):

        def answered(number: int = number) -> bool:
            return len(dialog.answers) == number

        await desk.answer(typed, "Return", answered)
    await asking
    assert dialog.pins == [b"0000", b"123456"]
    await desk.empty()


async def test_cancel(desk: Desk, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.window()
    await desk.answer("12", "Escape", asking.done)
    with pytest.raises(Cancelled):
        await asking
    assert not dialog.pins
    await desk.empty()


@pytest.mark.parametrize(("key", "answer"), [("Return", True), ("Escape", False)])
async def test_confirm(desk: Desk, key: str, *, answer: bool) -> None:
    asking = asyncio.create_task(desk.prompter.confirm(TEXT))
    await desk.window()
    await desk.answer("", key, asking.done)
    assert await asking is answer
    await desk.empty()


async def test_the_prompter_is_killed_and_comes_again(desk: Desk, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.window()
    os.kill(await desk.prompter_pid(), signal.SIGKILL)
    with pytest.raises(Unavailable, match="went away"):
        await asking
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.empty()
    await desk.window()
    await desk.answer("123456", "Return", asking.done)
    await asking


async def test_two_requests_at_once_have_two_dialogs_in_turn(desk: Desk) -> None:
    first, second = FakeDialog(), FakeDialog()
    other = SystemPrompter(await desk.join(), Timeouts(call=20, turn=30, answer=30))
    tasks = [
        asyncio.create_task(desk.prompter.ask_pin(first)),
        asyncio.create_task(other.ask_pin(second)),
    ]
    await desk.window()
    assert len(desk.screen.windows()) == 1
    await desk.answer("123456", "Return", lambda: any(task.done() for task in tasks))
    assert not all(task.done() for task in tasks)
    await desk.window()
    await desk.answer("123456", "Return", lambda: all(task.done() for task in tasks))
    await asyncio.gather(*tasks)
    assert first.pins == second.pins == [b"123456"]


async def test_a_cancelled_task_takes_its_dialog_along(desk: Desk, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(desk.prompter.ask_pin(dialog))
    await desk.window()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    await desk.empty()


async def test_nobody_answers(desk: Desk, dialog: FakeDialog) -> None:
    prompter = SystemPrompter(desk.bus, Timeouts(call=20, turn=30, answer=0.3))
    with pytest.raises(TimedOut):
        await prompter.ask_pin(dialog)
    await desk.empty()


async def test_no_display_is_unavailable(dialog: FakeDialog) -> None:
    with private_bus({"GDK_BACKEND": "x11"}) as private:
        private.add_service(NAME, str(GCR_PROMPTER))
        private.start()
        async with joined(private.address) as bus:
            with pytest.raises(Unavailable):
                await SystemPrompter(bus, Timeouts()).ask_pin(dialog)


async def test_control_and_bidi_characters_of_a_label_do_not_reach_the_dialog(
    desk: Desk, dialog: FakeDialog
) -> None:
    evil = replace(TOKEN, label="work\u202efdp.exe\x1b[2J\n\u2066Type it here")
    text = words.ask_pin(replace(STATUS, id=evil), [], "")
    asking = asyncio.create_task(desk.prompter.confirm(replace(text, description="")))
    window = await desk.window("work")
    title = desk.screen.xdotool("getwindowname", window)
    assert "work" in title
    assert not [c for c in title if unicodedata.category(c) in {"Cc", "Cf"}]
    await desk.answer("", "Escape", asking.done)
    assert await asking is False
