"""`hsmagent status --watch` and `hsmagent log --follow`: in the foreground, until Ctrl-C.

Both ask the daemon once a second over one connection, and end when the connection does: they must
not start an agent that was stopped.
"""

import json
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from hsmagent.cli import glance, output, show, terminal
from hsmagent.cli.arguments import Given
from hsmagent.cli.main import AT_HAND
from hsmagent.control.client import Daemon
from hsmagent.errors import UsageError

_PAUSE = 1.0  # seconds
_TAIL = 10  # entries from before that are shown, as tail(1) does

# The alternate screen, no cursor, and lines cut where the terminal ends (xterm's ctlseqs: DECSET).
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(given: Given) -> int:
    """Draw the status until Ctrl-C. Raises UsageError where there is nothing to draw on."""
    if given.flag("--json"):
        raise UsageError("--watch is for a person's eyes, and --json for a program: give one")
    if not output.on_terminal() or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("--watch draws on a terminal; without it `hsmagent status` prints once")
    with (
        Daemon(given.value("--runtime-dir"), AT_HAND) as daemon,
        terminal.opened("draw on") as tty,
    ):
        answer = daemon.call("status")
        with terminal.without_echo(tty, _ENTER, after=_LEAVE):
            while True:
                terminal.write_to(tty, _drawn(glance.status(answer), *os.get_terminal_size(tty)))
                time.sleep(_PAUSE)
                answer = daemon.call("status")


def _drawn(text: str, _columns: int, rows: int) -> str:
    lines = text.splitlines()
    if len(lines) >= rows:
        lines[rows - 2 :] = ["…"]
    shown = "".join(f"{line}{_TO_LINE_END}\r\n" for line in lines)
    return f"{_HOME}{shown}{time.strftime('%H:%M:%S')}  Ctrl-C ends this{_TO_LINE_END}{_TO_END}"


def follow(given: Given) -> int:
    """Print the newest entries of the log, and each further one, until Ctrl-C."""
    laid_out, since = _layout(given), given.value("--since")
    reader = select.poll()
    if sys.stdout is not None:
        reader.register(sys.stdout.fileno(), 0)  # without events, poll tells that the reader left
    with Daemon(given.value("--runtime-dir"), AT_HAND) as daemon:
        answer = daemon.call("log", since=since)
        output.write(laid_out(answer["entries"][0 if since else -_TAIL :]))
        while not reader.poll(_PAUSE * 1000):
            answer = daemon.call("news", seen=answer.get("seen", 0))
            output.write(laid_out(answer["entries"]))
    raise BrokenPipeError


def _layout(given: Given) -> Callable[[list[dict[str, Any]]], str]:
    """Return the function that lays entries out; with --json each entry is a line."""
    if given.flag("--json"):
        return lambda entries: "".join(f"{json.dumps(e, ensure_ascii=False)}\n" for e in entries)
    if output.on_terminal():
        return glance.Log().lay_out
    return lambda entries: show.log({"entries": entries})
