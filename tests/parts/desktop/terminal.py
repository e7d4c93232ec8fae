"""A program on a terminal of its own, driven by what it shows."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence

from tests.parts.until import until

ROWS, COLUMNS = 40, 120
PATIENCE = 2.0  # seconds
_REDRAW = 1.0

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


def drive(
    command: Sequence[str],
    environment: dict[str, str],
    answers: Sequence[tuple[bytes, bytes]],
    done: Callable[[bytes], bool],
    deadline: float = 30.0,
) -> bytes:
    """Run a program until `done` says so of what it has shown; return that, without controls.

    answers: what to type when a text shows, one after the other; each text is looked for in what
    is shown after the one before. What is typed while a program sets its terminal up may be lost:
    where nothing is shown any more it is typed again, as a person would.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        # Newer ncurses open no terminal without a size.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.execvpe(command[0], tuple(command), environment)  # the program is named by the test
    raw, looked_at, left, typed = b"", 0, list(answers), b""
    shown_at = time.monotonic()
    end = shown_at + deadline
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    raw += os.read(terminal, 65536)
                except OSError:
                    break
                shown_at = time.monotonic()
            elif typed and time.monotonic() > shown_at + PATIENCE:
                os.write(terminal, typed)
                shown_at = time.monotonic()
            shown = _CONTROL.sub(b"", raw)
            while left and (at := shown.find(left[0][0], looked_at)) >= 0:
                looked_at = at + len(left[0][0])
                typed = left.pop(0)[1]
                os.write(terminal, typed)
            if done(shown[looked_at:] if not left else b""):
                break
        return _CONTROL.sub(b"", raw)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


class Terminal:
    """A person's terminal: a program runs there as its session's leader, and is typed at."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.execvpe(command[0], tuple(command), environment)  # the program is named by the test
        self.raw = b""
        self._columns = COLUMNS
        self._looked_at = 0

    def shown(self) -> str:
        """Return all that it has shown so far, as it came."""
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # nobody has the other end open any more
                break
            self.raw += data
        return self.raw.decode(errors="replace").replace("\r\n", "\n")

    def wait_for(self, text: str) -> str:
        """Wait until it shows this, after what was waited for before; return what came with it."""
        until(lambda: text in self.shown()[self._looked_at :])
        start, found = self._looked_at, self.shown().index(text, self._looked_at)
        self._looked_at = found + len(text)
        return self.shown()[start : self._looked_at]

    def wait_for_screen(self, text: str) -> None:
        """Wait until this stands on the screen of a program that draws only what changes."""

        def drawn() -> bool:
            before = len(self.shown())
            self._columns ^= 1  # one more or one less: it draws everything anew
            size = struct.pack("HHHH", ROWS, self._columns, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
            time.sleep(_REDRAW)
            return text in _CONTROL.sub(b"", self.shown()[before:].encode()).decode()

        until(drawn)

    def type(self, typed: str) -> None:
        r"""Type this; "\n" is the Enter key."""
        os.write(self._terminal, typed.encode())

    def echoes(self) -> bool:
        """Whether it shows what is typed now."""
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    def close(self) -> None:
        """Hang up, and end the program."""
        os.close(self._terminal)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
