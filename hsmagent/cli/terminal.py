"""Asking in the terminal: a PIN without echo, and a plain yes or no.

The echo comes back whatever happens: on an error, an interrupt, a hang-up or a stop (Ctrl-Z).
"""

import locale
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, MappingProxyType
from typing import Any

from hsmagent.cli.output import write
from hsmagent.control.client import PIN_LAST_TRY_CONFIRMED, PIN_PLAIN
from hsmagent.errors import HsmAgentError
from hsmagent.frame import wipe

MOST = 1024  # no token takes a longer PIN
_LFLAG = 3
Handler = Callable[[int, FrameType | None], Any]

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def pin_frame(asked: dict[str, Any], *, from_stdin: bool, last_try: bool) -> bytearray:
    """Ask for the PIN of the token that the daemon described; return the frame to send it in."""
    body = bytearray([PIN_LAST_TRY_CONFIRMED if last_try else PIN_PLAIN])
    if asked.get("waiting"):  # the PIN confirms the request that waits
        print(asked["waiting"], file=sys.stderr, flush=True)
    if asked["pin_pad"]:
        write(f"Type the PIN of {asked['token']} on the reader.\n")
        return body
    if from_stdin and sys.stdin is None:
        raise HsmAgentError("standard input is closed; nothing was tried")
    # Where standard input is a terminal, it is not read: it would show the PIN.
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
    """Read one line from the terminal without echo. What was typed before the prompt is dropped."""
    with opened("ask for the PIN in; use --stdin") as tty:
        with without_echo(tty, prompt):
            secret = read_line(tty)
        write_to(tty, "\n")
    return secret


def agree(question: str, otherwise: str) -> bool:
    """Ask a yes-or-no question. otherwise: what to do without a terminal."""
    return is_yes(ask_line(f"{question} [y/N] ", otherwise).encode())


def types(word: str, otherwise: str) -> bool:
    """Ask for a whole word, for what cannot be undone. otherwise: what to do without a terminal."""
    return ask_line(f"Type {word} to go on: ", otherwise) == word


def is_yes(line: bytes | bytearray) -> bool:
    """Whether a line that was typed is a yes; everything else is a no."""
    return line.strip().lower() in (b"y", b"yes")


def ask_line(question: str, otherwise: str) -> str:
    """Read one line from the terminal, as it was typed; otherwise: what to do without one."""
    with opened(otherwise) as tty:
        termios.tcflush(tty, termios.TCIFLUSH)
        write_to(tty, question)
        return bytes(read_line(tty)).decode(errors="replace").strip()


def show(text: str) -> None:
    """Write to the terminal itself, wherever the command's output goes."""
    with opened("show it in") as tty:
        write_to(tty, text)


def write_to(tty: int, text: str) -> None:
    """Write to a terminal in its own encoding: other bytes might be control codes to it."""
    try:
        os.write(tty, text.encode(locale.getencoding(), "backslashreplace"))
    except OSError as error:
        raise HsmAgentError(f"the terminal cannot be written to: {error.strerror}") from None


def read_line(descriptor: int) -> bytearray:
    """Read one line, without its end. No copy stays behind in a buffer; the caller wipes it."""
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
def opened(otherwise: str) -> Iterator[int]:
    """Open the terminal; otherwise: what cannot be done without one. Raises HsmAgentError."""
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise HsmAgentError(f"there is no terminal to {otherwise}") from None
    try:
        yield tty
    finally:
        os.close(tty)


@contextmanager
def without_echo(
    tty: int,
    prompt: str = "",
    signals: Mapping[signal.Signals, Handler] = MappingProxyType({}),
    after: str = "",
) -> Iterator[None]:
    """Show no typing while the block runs, and drop what was typed then at its end.

    prompt: written first. after: written at the end, however the block ends, to undo what `prompt`
    did. signals: handlers in place of the usual ones, which end the process or stop it.
    """
    before = termios.tcgetattr(tty)

    def hide() -> None:
        # In this order: what is typed after the prompt must be neither shown nor lost.
        set_echo(tty, on=False)
        write_to(tty, prompt)

    def restore() -> None:
        write_to(tty, after)
        termios.tcsetattr(tty, termios.TCSAFLUSH, before)

    def end(number: int, _frame: FrameType | None) -> None:
        with suppress(HsmAgentError, termios.error):  # the terminal may be what has gone
            restore()
            write_to(tty, "" if after else "\n")
        os._exit(128 + number)

    def stop(number: int, _frame: FrameType | None) -> None:
        restore()
        _stop_here(number, stop)
        hide()

    with _handled({**dict.fromkeys(_ENDS, end), signal.SIGTSTP: stop, **signals}):
        hide()
        try:
            yield
        finally:
            with suppress(HsmAgentError, termios.error):
                restore()


@contextmanager
def _handled(signals: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals like this while the block runs."""
    before = {number: signal.signal(number, handler) for number, handler in signals.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_echo(tty: int, *, on: bool) -> None:
    """Show what is typed from now on, or do not show it. What was typed before is dropped."""
    try:
        mode = termios.tcgetattr(tty)
        mode[_LFLAG] = mode[_LFLAG] | termios.ECHO if on else mode[_LFLAG] & ~termios.ECHO
        termios.tcsetattr(tty, termios.TCSAFLUSH, mode)
    except termios.error as error:
        raise HsmAgentError(f"the terminal cannot be set up: {error.args[-1]}") from None


def in_foreground(tty: int) -> bool:
    """Whether we are in the foreground of this terminal, so that its input comes to us."""
    try:
        return os.tcgetpgrp(tty) == os.getpgrp()
    except OSError:
        return False


def _stop_here(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Stop as the shell expects, and come back with our handler in place."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.signal(number, handler)
