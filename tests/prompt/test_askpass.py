"""gnome-ssh-askpass under Xvfb, and scripts that behave otherwise."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.prompt.askpass import Askpass, find_program
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.until import async_until
from tests.prompt.dialogs import TEXT, FakeDialog, always

GNOME = "/usr/lib/openssh/gnome-ssh-askpass"
PATH = os.environ["PATH"]


@pytest.fixture
def display() -> Iterator[Screen]:
    with screen() as display:
        yield display


@pytest.fixture
def gnome(display: Screen, monkeypatch: pytest.MonkeyPatch) -> Askpass:
    # xdotool is quicker than any person, and GTK warns of this and that.
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 0.0)
    environment = display.environment | {"PATH": PATH, "SSH_ASKPASS": GNOME}
    return Askpass(always(environment), 30)


async def press(display: Screen, text: str, key: str, done: Callable[[], object]) -> None:
    """Type and press; again where the window was not yet taking keys."""
    while not done():
        await asyncio.to_thread(display.wait_for_window)
        if text:
            await asyncio.to_thread(display.press, "ctrl+a")
            await asyncio.to_thread(display.type, text)
        await asyncio.to_thread(display.press, key)
        with suppress(TimeoutError):
            await async_until(done, 3)


async def test_wrong_then_right(display: Screen, gnome: Askpass, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(gnome.ask_pin(dialog))
    await press(display, "0000", "Return", lambda: dialog.pins)
    await press(display, "123456", "Return", asking.done)
    await asking
    assert dialog.pins == [b"0000", b"123456"]


async def test_cancel(display: Screen, gnome: Askpass, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(gnome.ask_pin(dialog))
    await press(display, "12", "Escape", asking.done)
    with pytest.raises(Cancelled):
        await asking
    assert not dialog.pins


async def test_refusal(display: Screen, gnome: Askpass) -> None:
    asking = asyncio.create_task(gnome.confirm(TEXT))
    await press(display, "", "Escape", asking.done)
    assert await asking is False


async def test_a_notice_is_taken_down(display: Screen, gnome: Askpass) -> None:
    notice = asyncio.create_task(gnome.notice(TEXT))
    await asyncio.to_thread(display.wait_for_window)
    notice.cancel()
    await asyncio.wait([notice])
    assert notice.cancelled()
    await asyncio.to_thread(display.wait_until_empty)


# -- scripts ---------------------------------------------------------------------------------

Script = Callable[[str], Mapping[str, str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def make(body: str) -> Mapping[str, str]:
        program = tmp_path / "askpass"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return {"PATH": PATH, "DISPLAY": ":0", "SSH_ASKPASS": str(program), "HERE": str(tmp_path)}

    return make


async def test_what_it_is_told(script: Script, dialog: FakeDialog, tmp_path: Path) -> None:
    environment = script(
        'printf "%s|%s" "$1" "$SSH_ASKPASS_PROMPT" >> "$HERE/log"\n'
        'if [ -e "$HERE/second" ]; then echo 123456; else touch "$HERE/second"; echo 1; fi'
    )
    await Askpass(always({**environment, "SSH_ASKPASS_PROMPT": "none"}), 20).ask_pin(dialog)
    question = f"{TEXT.message}\n\n{TEXT.description}|"
    assert (tmp_path / "log").read_text() == f"{question}Wrong PIN. Tries left: 2.\n\n{question}"
    assert dialog.pins == [b"1", b"123456"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("exit 1", Cancelled),
        ("echo 1234; exit 255", Cancelled),
        ("kill -9 $$", Unavailable),
        ("head -c 2000 /dev/zero", Unavailable),
    ],
)
async def test_failures(
    script: Script, dialog: FakeDialog, body: str, error: type[Exception]
) -> None:
    environment = script(body)
    with pytest.raises(error):
        await Askpass(always(environment), 20).ask_pin(dialog)
    assert not dialog.pins


@pytest.mark.parametrize(("status", "answer"), [(0, True), (1, False), (255, False)])
async def test_confirm_goes_by_the_exit_status(
    script: Script, status: int, *, answer: bool
) -> None:
    environment = script(f'[ "$SSH_ASKPASS_PROMPT" = confirm ] || exit 0; exit {status}')
    assert await Askpass(always(environment), 20).confirm(TEXT) is answer


@pytest.mark.parametrize("display", ["DISPLAY", "WAYLAND_DISPLAY"])
async def test_without_its_display_it_says_no_for_nobody(
    dialog: FakeDialog, monkeypatch: pytest.MonkeyPatch, display: str
) -> None:
    """The real one, whose display is that of a session which has ended."""
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 0.0)
    environment = {"PATH": PATH, display: ":4711", "SSH_ASKPASS": GNOME}
    askpass = Askpass(always(environment), 20)
    with pytest.raises(Unavailable, match="left at once"):
        await askpass.ask_pin(dialog)
    with pytest.raises(Unavailable, match="left at once"):
        await askpass.confirm(TEXT)
    with pytest.raises(Unavailable, match="left at once"):
        await askpass.notice(TEXT)


async def test_a_no_that_takes_time_is_the_persons(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 0.0)
    assert await Askpass(always(script("echo warning >&2; exit 1")), 20).confirm(TEXT) is False


async def test_one_that_hangs_is_ended(
    script: Script, dialog: FakeDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmagent.prompt.child._PATIENCE", 0.1)
    environment = script('trap "" TERM; echo $$ > "$HERE/pid"; while :; do sleep 0.1; done')
    asking = asyncio.create_task(Askpass(always(environment), 2).ask_pin(dialog))
    with pytest.raises(TimedOut):
        await asking
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


async def test_a_wrapper_takes_its_window_along(
    script: Script, dialog: FakeDialog, tmp_path: Path
) -> None:
    environment = script('sleep 3600 &\necho $! > "$HERE/window"; wait')
    asking = asyncio.create_task(Askpass(always(environment), 20).ask_pin(dialog))
    window = tmp_path / "window"
    await async_until(lambda: window.exists() and window.read_text())
    asking.cancel()
    await asyncio.wait([asking])
    status = Path(f"/proc/{window.read_text().strip()}/stat")
    # Gone, or dead and not yet reaped.
    await async_until(lambda: not status.exists() or status.read_text().split()[2] == "Z", 5)


@pytest.mark.parametrize(
    ("said", "answer"), [("", True), ("yes", True), ("Yes", True), ("no", False), ("1234", False)]
)
async def test_what_it_prints_may_be_a_no(script: Script, said: str, *, answer: bool) -> None:
    """As ssh has it: a program that knows no confirmation prints what it always prints."""
    assert await Askpass(always(script(f"echo {said}")), 20).confirm(TEXT) is answer


def test_without_a_display_it_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="display"):
        find_program({"PATH": PATH, "SSH_ASKPASS": GNOME})


def test_it_is_found_where_distributions_have_it() -> None:
    assert Path(find_program({"DISPLAY": ":0"})).exists()


async def test_one_that_is_not_there(dialog: FakeDialog) -> None:
    environment = {"DISPLAY": ":0", "SSH_ASKPASS": "/nonexistent"}
    with pytest.raises(Unavailable, match="does not start"):
        await Askpass(always(environment), 20).ask_pin(dialog)
