"""Asking in the terminal: a PIN without echo, and a plain yes or no.

The echo comes back whatever happens: on an error, an interrupt, a hang-up or a stop (Ctrl-Z).
"""

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hsmagent.cli.output import write
from hsmagent.control.client import PIN_LAST_TRY_CONFIRMED, PIN_PLAIN
from hsmagent.errors import HsmAgentError
from hsmagent.frame import wipe

MOST = 1024  # no token takes a longer PIN
_LFLAG = 3
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def pin_frame(asked: dict[str, Any], *, from_stdin: bool, last_try: bool) -> bytearray:
    """Ask for the PIN of the token that the daemon described; return the frame to send it in."""
    body = bytearray([PIN_LAST_TRY_CONFIRMED if last_try else PIN_PLAIN])
    if asked.get("waiting"):  # the PIN is a yes to that
        print(asked["waiting"], file=sys.stderr, flush=True)
    if asked["pin_pad"]:
        write(f"Type the PIN of {asked['token']} on the reader.\n")
        return body
    if from_stdin and sys.stdin is None:
        raise HsmAgentError("standard input is closed; nothing was tried")
    # --stdin where nothing is piped in: a terminal there would show the PIN.
    pin = read_line(0) if from_stdin and not os.isatty(0) else ask_pin(asked)
    body += pin
    wipe(pin)
    if len(body) == 1:
        raise HsmAgentError("the PIN is empty; nothing was tried")
    return body


def ask_pin(asked: dict[str, Any]) -> bytearray:
    """Read a PIN from the terminal without echo."""
    warning = f"{asked['warning']}\n" if asked["warning"] else ""
    return ask_secret(f"{warning}PIN for {asked['token']}: ")


def ask_secret(prompt: str) -> bytearray:
    """Read one line from the terminal without echo; what was typed ahead does not count."""
    with _terminal("ask for the PIN in; use --stdin") as tty:
        with _without_echo(tty, prompt):
            secret = read_line(tty)
        os.write(tty, b"\n")
    return secret


def agree(question: str, otherwise: str) -> bool:
    """Ask a yes-or-no question; only "yes" is yes. otherwise: what to do without a terminal."""
    return ask_line(f"{question} Type yes to go on: ", otherwise) == "yes"


def ask_line(question: str, otherwise: str) -> str:
    """Read one line from the terminal, as it was typed; otherwise: what to do without one."""
    with _terminal(otherwise) as tty:
        termios.tcflush(tty, termios.TCIFLUSH)
        os.write(tty, question.encode())
        return bytes(read_line(tty)).decode(errors="replace").strip()


def show(text: str) -> None:
    """Write to the terminal itself, and not into what a command's output goes to."""
    with _terminal("show it in") as tty:
        os.write(tty, text.encode())


def read_line(descriptor: int) -> bytearray:
    """Read one line, without its end; nothing of it stays behind in a buffer of ours."""
    line, piece = bytearray(), bytearray(1)
    try:
        while len(line) <= MOST and os.readv(descriptor, [piece]) and piece != b"\n":
            line += piece
    except OSError as error:
        wipe(line)
        raise HsmAgentError(f"the PIN cannot be read: {error.strerror}") from None
    finally:
        wipe(piece)
    if line.endswith(b"\r"):
        del line[-1]
    return line


@contextmanager
def _terminal(otherwise: str) -> Iterator[int]:
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise HsmAgentError(f"there is no terminal to {otherwise}") from None
    try:
        yield tty
    finally:
        os.close(tty)


@contextmanager
def _without_echo(tty: int, prompt: str) -> Iterator[None]:
    before = termios.tcgetattr(tty)
    silent = [*before]
    silent[_LFLAG] &= ~termios.ECHO

    def hide() -> None:
        # In this order: what is typed once the prompt is there must be neither shown nor lost.
        termios.tcsetattr(tty, termios.TCSAFLUSH, silent)
        os.write(tty, prompt.encode())

    def restore() -> None:
        termios.tcsetattr(tty, termios.TCSAFLUSH, before)

    def end(number: int, _frame: FrameType | None) -> None:
        restore()
        os.write(tty, b"\n")
        os._exit(128 + number)

    def stop(number: int, _frame: FrameType | None) -> None:
        restore()
        _stop_here(number, stop)
        hide()

    handlers = {number: signal.signal(number, end) for number in _ENDS}
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, stop)
    hide()
    try:
        yield
    finally:
        restore()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop_here(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Stop as the shell expects, and come back with our handler in place."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.signal(number, handler)
