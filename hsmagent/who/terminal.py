"""The terminals of programs that ask for a key, and those where a person wants to be asked.

A program's terminal gets a line that says that the agent waits to be unlocked. Nothing is ever
asked there, since whoever owns that terminal could answer. The line is always the same, so that
nobody can make us write what they like.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from hsmagent.model import Clock, Request
from hsmagent.who.peer import lineage, terminal_of

LINE = b"\r\nhsmagent waits: run `hsmagent unlock`\r\n"
PAUSE = 60.0
"""Seconds in which a terminal gets the line once, however many programs ask there."""

_MOST_TERMINALS = 100
_PTS, _PTS_LAST = 136, 143  # the kernel's major numbers (devices.txt)


class Terminals:
    """Writes the line, once in PAUSE, to terminals of ours that take messages."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[int, float] = {}  # device → when

    def tell(self, request: Request) -> bool:
        """Write the line where this request comes from, if that is a terminal of ours.

        Not for a forwarded request, nor for a process that sees other files than we do, nor where
        messages are not wanted (mesg(1)). Says whether it was written. Never raises.
        """
        if request.destination is not None and request.destination.forwarded:
            return False
        pid = request.peer.process.pid
        with suppress(OSError):
            device = terminal_of(pid)
            if not device or self._told.get(device, -PAUSE) > self._clock() - PAUSE:
                return False
            if _mounts(pid) == _mounts(os.getpid()) and _write(device):
                self._told[device] = self._clock()
                if len(self._told) > _MOST_TERMINALS:
                    del self._told[next(iter(self._told))]
                return True
        return False


@dataclass(frozen=True, slots=True)
class Seat:
    """A process that sits at a terminal: its session, and the terminal's device number."""

    pid: int
    start: int
    session: int
    terminal: int

    @property
    def where(self) -> str:
        """The terminal's path."""
        return _path(self.terminal)

    def serves(self, request: Request) -> bool:
        """Whether this terminal may be asked in about the request, now.

        Its process must be in the foreground; and whoever asks, and all of their ancestors, must
        belong to other terminals and sessions: they can type what they like into their own.
        """
        own = next(lineage(self.pid), None)
        if own is None or own.start != self.start or own.terminal != self.terminal:
            return False
        asker = request.peer.process
        line = list(lineage(asker.pid))
        if not own.at_terminal or not line or asker.start not in (0, line[0].start):
            return False
        return not any(
            each.session == self.session or each.terminal == self.terminal for each in line
        )


def seat_of(pid: int) -> Seat | None:
    """Return where a process sits; None for one without a terminal, or that sees other files."""
    own = next(lineage(pid), None)
    try:
        if own is None or not own.terminal or _mounts(pid) != _mounts(os.getpid()):
            return None
    except OSError:
        return None
    return Seat(pid, own.start, own.session, own.terminal)


def _mounts(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116 - one call


def _write(device: int) -> bool:
    """Write the line to a terminal that is ours and takes messages. Raises OSError."""
    descriptor = os.open(_path(device), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        takes = found.st_mode & stat.S_IWGRP and found.st_uid == os.getuid()
        if not takes or not stat.S_ISCHR(found.st_mode) or found.st_rdev != device:
            return False
        os.write(descriptor, LINE)
    finally:
        os.close(descriptor)
    return True


def _path(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    if _PTS <= major <= _PTS_LAST:
        return f"/dev/pts/{minor}"
    try:
        name = os.readlink(f"/sys/dev/char/{major}:{minor}")  # noqa: PTH115 - one call
    except OSError:
        return os.devnull
    return f"/dev/{PurePosixPath(name).name}"  # a console, a serial line
