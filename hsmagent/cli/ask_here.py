"""`hsmagent ask-here`: the daemon asks in this terminal what no window can ask.

It runs in the foreground only. While a PIN is asked, and between questions, typing is not shown, so
that a PIN that is typed too late cannot be read; what was typed before a question does not count
for it. Ctrl-C answers "no" to a question, and ends the command between questions. While the command
is stopped (Ctrl-Z), the daemon asks nothing here.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from hsmagent.cli import terminal
from hsmagent.cli.arguments import Given
from hsmagent.control.client import ANSWER_NO, ANSWER_YES, Daemon, hung_up
from hsmagent.errors import HsmAgentError, ProtocolError
from hsmagent.frame import wipe
from hsmagent.model import printable

_LINE = 500
# Seconds from a question that was taken back to the next one: whoever is typing a PIN for the first
# must have time to see that.
_PAUSE = 2.0

_OVER = {
    "done": "Done.",
    "stopped": "It cannot go on; `hsmagent log` says why.",
    "no": "Refused.",
    "gone": "Taken back: nobody waits for it any more.",
    "over": "Over.",
    "late": "Refused: there was no answer in time.",
}
_BELL = "\a"


class _Stopped(Exception):
    """The terminal's user wants us out of the way."""


def run(given: Given) -> int:
    """Be asked until Ctrl-C, or until the daemon hangs up."""
    with terminal.opened("be asked in") as tty:
        while True:
            if not terminal.in_foreground(tty):
                raise HsmAgentError("ask-here asks in the foreground only, and is not there")
            try:
                with (
                    Daemon(given.value("--runtime-dir")) as daemon,
                    terminal.without_echo(tty, signals=_SIGNALS),
                ):
                    daemon.check_place()
                    _Attendant(daemon, tty).attend()
            except _Stopped:
                os.kill(os.getpid(), signal.SIGTSTP)  # this returns after SIGCONT


def _stopped(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


_SIGNALS: "dict[signal.Signals, terminal.Handler]" = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTSTP: _stopped,
}


class _Attendant:
    """Shows what the daemon asks, and answers with what is typed."""

    def __init__(self, daemon: Daemon, tty: int) -> None:
        self._daemon = daemon
        self._tty = tty
        self._question: dict[str, Any] = {}  # the one that waits for an answer
        self._shown: dict[str, Any] = {}  # a question or a notice, not over yet
        self._not_before = 0.0

    def attend(self) -> None:
        """Be asked. Ends by an exception."""
        where = self._daemon.call("ask_here")["terminal"]
        self._say(f"What no window can ask is asked here, in {where}. Ctrl-C ends that.\n")
        while True:
            try:
                self._step()
            except KeyboardInterrupt:
                if not self._question:
                    raise
                self._answer(ANSWER_NO)

    def _step(self) -> None:
        """Take what the daemon says, or else what is typed."""
        try:
            while (message := self._daemon.next_message()) is not None:
                self._take(message)
            typing = [self._tty] if self._question else []
            ready, _, _ = select.select([self._daemon.fileno(), *typing], [], [])
            if self._daemon.fileno() in ready:
                self._daemon.receive()
                return
        except (ValueError, KeyError, TypeError):
            raise ProtocolError("the daemon asks what cannot be understood") from None
        except OSError:
            raise hung_up() from None
        self._read()

    def _take(self, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._ask(message["ask"])
        elif "over" in message:
            self._end(message["over"])
        elif "error" in message:
            raise HsmAgentError(printable(message["error"]["message"], _LINE))

    def _ask(self, question: dict[str, Any]) -> None:
        time.sleep(max(0.0, self._not_before - time.monotonic()))
        if not self._shown:
            self._say(f"\n{_BELL}{time.strftime('%H:%M:%S')}  {_line(question['title'])}\n")
        self._say("".join(f"{line}\n" for line in _lines(question, self._shown)))
        self._shown = question
        kind = question["kind"]
        self._question = question
        terminal.set_echo(self._tty, on=kind == "confirm")
        if kind == "pin":
            self._say("PIN: ")
        elif kind == "confirm":
            self._say(f"{_line(question['ok'])}? [y/N] ")

    def _read(self) -> None:
        pin = terminal.read_line(self._tty)
        if self._question["kind"] == "notice":
            pass  # there is nothing to be typed here
        elif self._question["kind"] == "pin":
            self._say("\n")
            self._answer(ANSWER_YES, pin)
        else:
            self._answer(ANSWER_YES if terminal.is_yes(pin) else ANSWER_NO)
        wipe(pin)

    def _answer(self, answer: int, pin: bytes | bytearray = b"") -> None:
        terminal.set_echo(self._tty, on=False)
        number = self._question["number"].to_bytes(4, "big")
        self._question = {}
        frame = bytearray((answer, *number))
        frame += pin
        self._daemon.send(frame)

    def _end(self, how: str) -> None:
        if self._question:  # it was not answered
            notice = self._question["kind"] == "notice"
            self._question = {}
            self._not_before = time.monotonic() + _PAUSE
            terminal.set_echo(self._tty, on=False)
            how = "over" if notice and how == "gone" else how
            self._say("\n")
        self._shown = {}
        self._say(f"{_OVER.get(how, _OVER['gone'])}\n")

    def _say(self, text: str) -> None:
        terminal.write_to(self._tty, text)


def _lines(question: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a question; of one that is asked again, those that are new.

    Each line is made printable here, whatever the daemon has done.
    """
    for part in ("message", "description", "warning"):
        if part == "warning" or question[part] != before.get(part):
            yield from map(_line, filter(None, question[part].split("\n")))


def _line(text: str) -> str:
    return printable(text, _LINE)
