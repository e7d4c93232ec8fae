"""Who is on the other end of a Unix socket: credentials from the kernel, names from /proc.

The uid and pid are the kernel's word (SO_PEERCRED). Everything else is read from /proc later and
only informs: a process of the same user can call itself what it likes. A pid that the kernel has
given to another process meanwhile is noticed by its start time, and read as "unknown".
"""

import os
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import chain, islice, pairwise

from hsmagent.model import Peer, Process, printable

UNKNOWN = "unknown"
MAX_PARENTS = 8
MAX_ARGUMENTS = 32
_MAX_LINEAGE = 64
MAX_COMMAND_LINE = 4096
MAX_ARGUMENT = 256  # a host name is at most 255 characters

# These run scripts, and a person knows the script by name.
INTERPRETERS = ("python", "perl", "ruby")
# A yes to one of these is not remembered for the next one: they run or relay what others ask for.
ANYTHING = re.compile(
    r"(python|perl|ruby|node|nodejs|deno|bun|java|php|lua|luajit|guile|tclsh|wish|expect|emacs"
    r"|(?!ssh)[a-z]*sh|busybox|sshd[a-z-]*|socat|nc|ncat|netcat|systemd-socket-proxyd"
    r"|p11-kit[a-z-]*|ssh-pkcs11-helper)[-.0-9]*([.][a-z]+)?"
)

_SO_PEERPIDFD = 77  # Linux 6.5; not in Python's socket module
_UCRED = struct.Struct("iII")


def peer_of(sock: socket.socket) -> Callable[[], Peer]:
    """Take the credentials of a fresh connection now; return what reads /proc at its first call.

    Most connections only list keys, and need no names. Each call returns the same Peer; what /proc
    does not tell, or no longer tells by then, is "unknown".
    """
    return cache(partial(_read, _credentials(sock)))


def credentials_of(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process that connected (SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    return pid, uid


def peer_of_process(pid: int, uid: int) -> Peer:
    """Return the process that has this `pid` now: the bus tells no more about a caller."""
    stat = _stat(pid)
    return _read(_Credentials(pid, uid, stat.start if stat is not None else 0))


def starter_of(peer: Peer) -> Peer:
    """Return the process that started this one; this one, when that is not known."""
    return peer_of_process(peer.parents[0].pid, peer.uid) if peer.parents else peer


def terminal_of(pid: int) -> int:
    """Return the device number of a process's controlling terminal, or 0."""
    found = _stat(pid) if pid > 0 else None
    return found.terminal if found is not None else 0


def lineage(pid: int) -> "Iterator[_Stat]":
    """Return the process and its ancestors, beyond their sessions too, as they are now."""
    stat = _stat(pid) if pid > 0 else None
    return iter(()) if stat is None else chain((stat,), islice(_ancestors(stat), _MAX_LINEAGE))


def _ancestors(child: "_Stat") -> "Iterator[_Stat]":
    while child.parent > 1:
        stat = _stat(child.parent)
        if stat is None or stat.start > child.start:  # gone; the number is another process's now
            return
        yield stat
        child = stat


@dataclass(frozen=True, slots=True)
class _Credentials:
    """Pid and uid of a peer; `start` pins the pid to one process (0: it has gone already)."""

    pid: int
    uid: int
    start: int


@dataclass(frozen=True, slots=True)
class _Stat:
    """What we use of /proc/PID/stat: pid, parent, session, terminal, start time (in clock ticks).

    at_terminal: whether it runs in the foreground of its terminal, and is not stopped.
    image: the process's name, and where its code, data, stack and arguments lie: all of that
    changes once the process has executed another program.
    """

    pid: int
    parent: int
    session: int
    terminal: int
    start: int
    at_terminal: bool = False
    image: bytes = b""


def _credentials(sock: socket.socket) -> _Credentials:
    pid, uid = credentials_of(sock)
    # The start time is read between opening the pidfd and asking whether the process still runs,
    # so it is this process's own. Before Linux 6.5 the pidfd is opened by number: then a pid that
    # was reused between connect and accept goes unnoticed.
    pidfd = _peer_pidfd(sock, pid)
    if pidfd < 0:
        return _Credentials(pid, uid, 0)
    try:
        stat = _stat(pid)
        return _Credentials(pid, uid, stat.start if stat and _runs(pidfd) else 0)
    finally:
        os.close(pidfd)


def _peer_pidfd(sock: socket.socket, pid: int) -> int:
    """Return a pidfd of the peer, or -1 if it has gone or lives in a pid namespace of its own."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        pass
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


def _runs(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)  # readable: it has ended
    return not poll.poll(0)


def _read(credentials: _Credentials) -> Peer:
    process = _identified(_process(credentials.pid), credentials.start)
    stat = _stat(credentials.pid)
    # The process that has this number now is the one that connected, and so was all the while.
    if not credentials.start or stat is None or stat.start != credentials.start:
        return Peer(credentials.uid, Process(credentials.pid, UNKNOWN))
    return Peer(credentials.uid, process, _parents(stat))


def _parents(child: _Stat) -> tuple[Process, ...]:
    """Return the ancestors, nearest first, up to the session's leader: the shell, as a rule."""
    parents: list[Process] = []
    for stat in islice(_ancestors(child), MAX_PARENTS):
        parents.append(_parent(stat.pid, stat.start, stat.image))
        if stat.session == stat.pid:
            break
    return tuple(parents)


@lru_cache(maxsize=64)
def _parent(pid: int, _start: int, _image: bytes) -> Process:
    """Return an ancestor, which is remembered: its children ask again and again."""
    return _process(pid)


def _process(pid: int) -> Process:
    try:
        exe = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - pathlib is slower
    except OSError:
        # One that lets nobody look into it, such as gpg-agent, still has a name (proc(5)).
        name = _content(f"/proc/{pid}/comm", 64).decode(errors="replace").strip()
        return Process(pid, printable(name, 60) or UNKNOWN)
    exe = exe.removesuffix(" (deleted)")  # replaced by an upgrade
    arguments = _arguments(pid)
    return Process(pid, _program(exe, arguments), printable(exe, MAX_ARGUMENT), arguments)


def _identified(process: Process, start: int) -> Process:
    """Add `identity`, by which a yes is remembered; a program in a sandbox is shown as sandboxed.

    In a mount namespace of its own a process may have any file at /usr/bin/ssh.
    """
    program, identity = process.program, ""
    try:
        file = os.stat(f"/proc/{process.pid}/exe")  # noqa: PTH116 - pathlib is slower
        its = _mount_namespace(process.pid)
    except OSError:
        return replace(process, start=start)
    if program != UNKNOWN:
        identity = f"{file.st_dev}:{file.st_ino}"
        if _own_mount_namespace() != its:
            group = _control_group(process.pid)
            program, identity = f"{program} (sandboxed: {group})", f"{identity} in {its} {group}"
        if ANYTHING.fullmatch(_last(process.exe)):
            identity = ""
    return Process(process.pid, program, process.exe, process.arguments, start, identity)


def _mount_namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116 - pathlib is slower


@cache
def _own_mount_namespace() -> int:
    return _mount_namespace(os.getpid())


def _control_group(pid: int) -> str:
    """Return the last part of a process's control group: "app-flatpak-org.gnome.Geary-1.scope"."""
    for line in _content(f"/proc/{pid}/cgroup", MAX_COMMAND_LINE).decode(errors="replace").split():
        if line.startswith("0::"):
            return printable(_last(line), 60) or "/"
    return UNKNOWN


def _program(exe: str, arguments: tuple[str, ...]) -> str:
    name = _last(exe)
    if name.startswith(INTERPRETERS):
        name = _script(arguments) or name
    return printable(name, 60) or UNKNOWN


def _script(arguments: tuple[str, ...]) -> str:
    """Return the name of the program that an interpreter runs, or "" for `-c` and the like."""
    for before, argument in pairwise(arguments):
        if not argument.startswith("-"):
            return "" if before == "-c" else _last(argument)
    return ""


def _last(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rpartition("/")[2]


def _arguments(pid: int) -> tuple[str, ...]:
    line = _content(f"/proc/{pid}/cmdline", MAX_COMMAND_LINE).decode("utf-8", "replace")
    words = line.split("\0", MAX_ARGUMENTS)[:MAX_ARGUMENTS]
    if words and not words[-1]:
        words.pop()
    if len(line) <= MAX_ARGUMENT and "".join(words).isprintable():  # as a rule
        return tuple(words)
    return tuple(printable(word, MAX_ARGUMENT) for word in words)


def _stat(pid: int) -> _Stat | None:
    """Return the process's place and age, or None if it has ended."""
    # The second field is the name in parentheses, and may itself hold blanks and parentheses.
    name, _, rest = _content(f"/proc/{pid}/stat", 1024).rpartition(b") ")
    fields = rest.split(b" ")
    try:
        parent, session, terminal, start = map(int, (fields[1], *fields[3:5], fields[19]))
        at_terminal = fields[2] == fields[5] and fields[0] not in {b"T", b"t"}
    except (IndexError, ValueError):
        return None
    if fields[0] in {b"Z", b"X"}:  # it has ended
        return None
    image = b" ".join((name, *fields[23:26], *fields[42:49]))
    return _Stat(pid, parent, session, terminal, start, at_terminal, image)


def _content(path: str, most: int) -> bytes:
    """Return the first bytes of a file of /proc, or b"" where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most)
    except OSError:  # ESRCH: it ended after we opened the file
        return b""
    finally:
        os.close(descriptor)
