"""pinentry-curses on a pty, and programs that behave otherwise."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hsmagent import assuan
from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.prompt import words
from hsmagent.prompt.base import Answer
from hsmagent.prompt.pinentry import Pinentry, find_programs
from tests.parts.until import async_until
from tests.parts.values import STATUS
from tests.prompt.dialogs import TEXT, FakeDialog, always

PATH = os.environ["PATH"]


@dataclass
class Terminal:
    """A pty, of which we are the person."""

    master: int
    name: str
    seen: bytes = b""

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": PATH, "GPG_TTY": self.name, "TERM": "xterm", "LC_ALL": "C.UTF-8"}

    def read(self) -> str:
        with suppress(BlockingIOError):
            self.seen += os.read(self.master, 65536)
        return self.seen.decode(errors="replace")

    async def shows(self, text: str) -> None:
        await async_until(lambda: text in self.read())

    def type(self, text: str) -> None:
        self.seen = b""
        os.write(self.master, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.set_blocking(master, False)
    yield Terminal(master, os.ttyname(slave))
    os.close(slave)
    os.close(master)


def at(terminal: Terminal, timeout: float = 20) -> Pinentry:
    return Pinentry(always(terminal.environment), timeout)


async def test_wrong_then_empty_then_right(terminal: Terminal, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(at(terminal).ask_pin(dialog))
    await terminal.shows("PIN for the token")
    await terminal.shows("<Unlock>")
    terminal.type("0000\r")
    await terminal.shows("Tries left: 2")
    terminal.type("\r")
    await terminal.shows("is empty")
    terminal.type("123456\r")
    await asking
    assert dialog.pins == [b"0000", b"123456"]
    assert "123456" not in terminal.read()


async def test_a_pin_of_odd_characters(terminal: Terminal) -> None:
    dialog = FakeDialog("a%b +ä".encode())
    asking = asyncio.create_task(at(terminal).ask_pin(dialog))
    await terminal.shows("<Unlock>")
    terminal.type("a%b +ä\r")
    await asking
    assert dialog.answers == [Answer.DONE]


async def test_cancel(terminal: Terminal, dialog: FakeDialog) -> None:
    asking = asyncio.create_task(at(terminal).ask_pin(dialog))
    await terminal.shows("<Unlock>")
    terminal.type("12\t\t\r")
    with pytest.raises(Cancelled):
        await asking
    assert not dialog.pins


@pytest.mark.parametrize(("key", "answer"), [("\r", True), ("\t\r", False)])
async def test_confirm(terminal: Terminal, key: str, *, answer: bool) -> None:
    asking = asyncio.create_task(at(terminal).confirm(replace(TEXT, ok="Allow")))
    await terminal.shows("<Allow>")
    terminal.type(key)
    assert await asking is answer


async def test_a_notice_is_taken_down(terminal: Terminal) -> None:
    notice = asyncio.create_task(at(terminal).notice(TEXT))
    await terminal.shows("PIN for the token")
    notice.cancel()
    await asyncio.wait([notice])
    assert notice.cancelled()


async def test_the_button_of_a_notice_hides_it(terminal: Terminal) -> None:
    notice = asyncio.create_task(at(terminal).notice(words.use_pin_pad(STATUS, [])))
    await terminal.shows("<Hide>")
    assert "Cancel" not in terminal.read()
    terminal.type("\r")
    await notice


async def test_pinentry_itself_times_out(terminal: Terminal, dialog: FakeDialog) -> None:
    with pytest.raises(TimedOut):
        await at(terminal, 1).ask_pin(dialog)


# -- other programs --------------------------------------------------------------------------

Script = Callable[[str], Mapping[str, str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Put a pinentry of the test's own first on the path, which is a shell script."""

    def make(body: str) -> Mapping[str, str]:
        program = tmp_path / "pinentry-gnome3"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:{PATH}", "DISPLAY": ":0", "LOG": str(tmp_path / "log")}

    return make


SERVE = """\
echo "OK hello"
while read -r line; do
    printf '%s\\n' "$line" >> "$LOG"
    case "$line" in
        GETPIN*|CONFIRM*|MESSAGE*) {act} ;;
        *) echo "ERR 1 not known" ;;
    esac
done
"""


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("exit 1", Unavailable),
        ("kill -9 $$", Unavailable),
        ("echo nonsense", Unavailable),
        ("head -c 3000 /dev/zero | tr '\\0' x", Unavailable),
        ("echo 'ERR 83918950 Inappropriate ioctl for device <Pinentry>'", Unavailable),
        ("echo 'ERR 83886179 cancelled'", Cancelled),
        ("echo 'ERR 83886142 timeout'", TimedOut),
    ],
)
async def test_failures(
    script: Script, dialog: FakeDialog, act: str, error: type[Exception]
) -> None:
    environment = script(SERVE.format(act=act))
    with pytest.raises(error):
        await Pinentry(always(environment), 20).ask_pin(dialog)
    assert not dialog.pins


@pytest.mark.parametrize("end", ["exit 1", "echo nonsense", "echo 'ERR 83886179 cancelled'"])
async def test_a_pin_without_a_good_end_is_wiped(
    script: Script, dialog: FakeDialog, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, seen = assuan.parse, []

    def spy(line: bytearray) -> assuan.Reply:
        reply = parse(line)
        if isinstance(reply, assuan.Data):
            seen.append(reply.value)
        return reply

    monkeypatch.setattr(assuan, "parse", spy)
    environment = script(SERVE.format(act=f"echo D 123456; {end}"))
    with pytest.raises((Cancelled, Unavailable)):
        await Pinentry(always(environment), 20).ask_pin(dialog)
    assert seen == [bytes(6)]


async def test_what_pinentry_is_told(script: Script, dialog: FakeDialog, tmp_path: Path) -> None:
    environment = script(SERVE.format(act="echo S x; echo D 123456; echo OK"))
    await Pinentry(always(environment), 20).ask_pin(dialog)
    assert (tmp_path / "log").read_text().splitlines() == [
        "OPTION no-grab",
        "OPTION lc-ctype=C.UTF-8",
        "SETTIMEOUT 20",
        "SETTITLE Unlock work",
        f"SETDESC {TEXT.message}%0A%0A{TEXT.description.replace(chr(10), '%0A')}",
        "SETOK Unlock",
        "SETPROMPT PIN:",
        "GETPIN",
    ]


@pytest.mark.parametrize("body", ["exit 1", "echo 'ERR 1 no'", "echo garbage"])
async def test_no_greeting(script: Script, dialog: FakeDialog, body: str) -> None:
    environment = script(body)
    with pytest.raises(Unavailable):
        await Pinentry(always(environment), 20).ask_pin(dialog)


async def test_one_that_hangs_is_ended(
    script: Script, dialog: FakeDialog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmagent.prompt.pinentry._GRACE", 0.1)
    monkeypatch.setattr("hsmagent.prompt.child._PATIENCE", 0.1)
    environment = script("trap '' TERM; echo $$ > \"$LOG\";" + SERVE.format(act="sleep 60"))
    with pytest.raises(TimedOut):
        await Pinentry(always(environment), 0).ask_pin(dialog)
    pid = int((tmp_path / "log").read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def test_there_is_none(dialog: FakeDialog, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "DISPLAY": ":0"}
    with pytest.raises(Unavailable, match="no pinentry"):
        await Pinentry(always(environment), 20).ask_pin(dialog)


async def test_one_that_does_not_start(dialog: FakeDialog, tmp_path: Path) -> None:
    program = tmp_path / "pinentry"
    program.write_text("#!/nonexistent\n")
    program.chmod(0o755)
    environment = {"PATH": str(tmp_path), "DISPLAY": ":0"}
    with pytest.raises(Unavailable, match="does not start"):
        await Pinentry(always(environment), 20).ask_pin(dialog)


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({"DISPLAY": ":0"}, "pinentry-gnome3"),
        ({"WAYLAND_DISPLAY": "w", "XDG_CURRENT_DESKTOP": "GNOME"}, "pinentry-gnome3"),
        ({"DISPLAY": ":0", "XDG_CURRENT_DESKTOP": "KDE"}, "pinentry-qt"),
        ({"GPG_TTY": "/dev/pts/0"}, "pinentry-curses"),
    ],
)
def test_the_flavour_follows_the_desktop(
    tmp_path: Path, environment: dict[str, str], chosen: str
) -> None:
    for name in ("pinentry-gnome3", "pinentry-qt", "pinentry-curses", "pinentry"):
        (tmp_path / name).touch(mode=0o755)
    assert Path(find_programs(environment | {"PATH": str(tmp_path)})[0]).name == chosen


def test_no_display_and_no_terminal_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="display"):
        find_programs({"PATH": PATH})


# -- a "no" that is nobody's -----------------------------------------------------------------

GIVES_UP = "echo 'no compositor' >&2; echo 'ERR 83886179 cancelled'"


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any time for "at once": this machine may be slow."""
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 60.0)


async def test_gnome_without_its_display_says_no_for_nobody(dialog: FakeDialog) -> None:
    """The real one, whose DISPLAY is that of a session which has ended."""
    environment = {"PATH": PATH, "DISPLAY": ":4711"}
    with pytest.raises(Unavailable):
        await Pinentry(always(environment), 20, "pinentry-gnome3").ask_pin(dialog)


async def test_a_no_at_once_and_with_a_complaint_is_nobodys(
    script: Script, dialog: FakeDialog, unhurried: None
) -> None:
    environment = script(SERVE.format(act=GIVES_UP))
    named = Pinentry(always(environment), 20, "pinentry-gnome3")
    with pytest.raises(Unavailable, match="at once"):
        await named.ask_pin(dialog)
    with pytest.raises(Unavailable, match="at once"):
        await named.confirm(TEXT)


async def test_a_no_that_takes_time_is_the_persons(
    script: Script, dialog: FakeDialog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 0.0)
    environment = script(SERVE.format(act=GIVES_UP))
    with pytest.raises(Cancelled):
        await Pinentry(always(environment), 20).ask_pin(dialog)


async def test_what_it_complained_of_before_the_question_does_not_count(
    script: Script, dialog: FakeDialog, unhurried: None
) -> None:
    """Toolkits warn of much while they start."""
    environment = script("echo warning >&2;" + SERVE.format(act="echo 'ERR 83886179 cancelled'"))
    with pytest.raises(Cancelled):
        await Pinentry(always(environment), 20).ask_pin(dialog)


async def test_much_complaint_stops_nobody(script: Script, dialog: FakeDialog) -> None:
    flood = "head -c 300000 /dev/zero >&2; echo D 123456; echo OK"
    await Pinentry(always(script(SERVE.format(act=flood))), 20).ask_pin(dialog)
    assert dialog.pins == [b"123456"]


@pytest.mark.parametrize("broken", ["exit 1", SERVE.format(act=GIVES_UP), "kill -9 $$"])
async def test_one_that_fails_does_not_hide_the_next(
    script: Script, dialog: FakeDialog, tmp_path: Path, unhurried: None, broken: str
) -> None:
    environment = script(broken)
    works = tmp_path / "pinentry-qt"
    works.write_text("#!/bin/sh\n" + SERVE.format(act="echo D 123456; echo OK"))
    works.chmod(0o755)
    await Pinentry(always(environment), 20).ask_pin(dialog)
    assert dialog.pins == [b"123456"]


async def test_the_one_that_is_named_asks_and_no_other(
    script: Script, dialog: FakeDialog, tmp_path: Path
) -> None:
    """It may need no display that we know of."""
    environment = {**script("exit 1"), "DISPLAY": ""}
    fuzzel = tmp_path / "pinentry-fuzzel"
    fuzzel.write_text("#!/bin/sh\n" + SERVE.format(act="echo D 123456; echo OK"))
    fuzzel.chmod(0o755)
    for named in ("pinentry-fuzzel", str(fuzzel)):
        await Pinentry(always(environment), 20, named).ask_pin(dialog)
    assert dialog.pins == [b"123456"] * 2
    with pytest.raises(Unavailable, match="there is no pinentry-bemenu"):
        await Pinentry(always(environment), 20, "pinentry-bemenu").ask_pin(dialog)


@pytest.mark.parametrize(
    "complaint", ["cannot open display: :7", "failed to connect to wayland; no compositor running?"]
)
async def test_a_slow_machine_has_no_display_either(
    script: Script, dialog: FakeDialog, monkeypatch: pytest.MonkeyPatch, complaint: str
) -> None:
    monkeypatch.setattr("hsmagent.prompt.child._AT_ONCE", 0.0)
    act = f"echo '{complaint}' >&2; echo 'ERR 83886179 cancelled'"
    with pytest.raises(Unavailable, match="complaint"):
        await Pinentry(always(script(SERVE.format(act=act))), 20).ask_pin(dialog)


def test_one_program_of_several_names_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "pinentry-gtk-2").touch(mode=0o755)
    (tmp_path / "pinentry").symlink_to("pinentry-gtk-2")
    found = find_programs({"DISPLAY": ":0", "PATH": str(tmp_path)})
    assert found == [str(tmp_path / "pinentry-gtk-2")]
