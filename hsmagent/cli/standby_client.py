"""`hsmagent-gpgsm --verify` as git calls it, done by a process that stands by: the end that asks.

git runs the program once for each commit of a log. The first leaves a process behind that has
everything imported (`standby`); this end, which imports next to nothing, hands it what git gave us.

One connection for each request, of packets: we send our circumstances, it answers READY, we hand
over DESCRIPTORS with one byte, it answers BEGUN and then the exit status in one byte. Before BEGUN
it has touched nothing, and we can do the work ourselves.
"""

import os
import stat
import sys

from hsmagent.errors import UsageError
from hsmagent.folders import changeable_by_others, runtime_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

READY, BEGUN = b"ready", b"begun"
DESCRIPTORS = 5  # standard input, output and error, that for status lines, the signature
# Seconds to become ready. It is so at once, unless it is stopped or the machine is very busy.
PATIENCE = 2.0
BROKEN_OFF = "hsmagent-gpgsm: the process that verified the signature was ended before it was done"

_OPTION = "--status-fd="
_DIGITS = 4  # of the descriptor's number
# What shells, terminals and git set, and nothing reads that verifies.
_ELSEWHERE = {b"_", b"COLUMNS", b"LINES", b"OLDPWD", b"PATH", b"PWD", b"SHLVL"}


class Standby:
    """The process that stands by to verify, as far as there is one. path: of its socket."""

    def __init__(self, status: int, signature: str, path: str) -> None:
        self._status = status
        self._signature = signature
        self.path = path
        self.circumstances = _circumstances()

    def verify(self) -> "int | None":
        """Have it done. Return the exit status; None where nothing was touched, so that we may."""
        import _socket

        try:
            for descriptor in (0, 1, 2, self._status):
                os.fstat(descriptor)
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            try:
                return self._ask(connection)
            finally:
                connection.close()
        except OSError:
            return None

    def _ask(self, connection: "socket") -> "int | None":
        """Do the talking. Return as `verify` does; OSError says the same as None."""
        connection.settimeout(PATIENCE)
        connection.connect(self.path)
        if not _is_ours(connection):
            return None
        connection.send(self.circumstances)
        try:
            if connection.recv(len(READY)) != READY:
                return None
        except TimeoutError:
            # So that nobody else has to wait for it.
            os.unlink(self.path)  # noqa: PTH108 - pathlib is slow to import
            return None
        self._hand_over(connection)
        connection.settimeout(None)
        if connection.recv(len(BEGUN)) != BEGUN:
            return None
        try:
            if status := connection.recv(1):
                return status[0]
        except OSError:
            pass
        sys.stderr.write(f"{BROKEN_OFF}\n")
        return 1

    def _hand_over(self, connection: "socket") -> None:
        import _socket

        # Not blocking: whoever opens a FIFO waits for its other end.
        signature = os.open(self._signature, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(signature).st_mode):
            raise OSError
        given = (0, 1, 2, self._status, signature)
        rights = b"".join(each.to_bytes(4, sys.byteorder) for each in given)
        passed = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)
        connection.sendmsg([b"\0"], [passed])


def of(words: "Sequence[str]") -> Standby | None:
    """Return who may do this, if these are the arguments by which git verifies.

    None, too, where the runtime folder is not there or not ours alone, or where what we read would
    depend on the current folder, which is another one's.
    """
    match words:
        case [option, "--verify", signature, "-"] if option.startswith(_OPTION):
            number = option.removeprefix(_OPTION)
        case _:
            return None
    if not (number.isascii() and number.isdecimal() and len(number) <= _DIGITS):
        return None
    if signature.startswith("-") or not all(map(_is_absolute, ("HOME", "TMPDIR"))):
        return None
    try:
        path = f"{runtime_folder()}/verify.sock"
        return Standby(int(number), signature, path) if _is_ours_alone(path) else None
    except (OSError, UsageError):
        return None


def _is_absolute(variable: str) -> bool:
    return (os.environ.get(variable) or "/").startswith("/")


def _is_ours_alone(path: str) -> bool:
    """Whether nobody else may put a socket there."""
    found = os.lstat(os.path.dirname(path))  # noqa: PTH120 - pathlib is slow to import
    alone = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
    return alone and stat.S_ISDIR(found.st_mode) and not changeable_by_others(path)


def _circumstances() -> bytes:
    """Return what a verdict depends on besides what is handed over, and whose program gives it."""
    program, root = os.stat(__file__), os.stat("/")  # noqa: PTH116 - pathlib is slow to import
    here = (program.st_dev, program.st_ino, program.st_ctime_ns, root.st_dev, root.st_ino)
    scheduled = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    whose = [sys.version, *sys.path, str(sys.flags), str(here), str(scheduled)]
    environment = [
        name + b"=" + value
        for name, value in sorted(os.environb.items())
        if name not in _ELSEWHERE and not name.startswith(b"GIT_")
    ]
    return b"\0".join([*(os.fsencode(word) for word in whose), *environment])


def _is_ours(connection: "socket") -> bool:
    """Whether our own user listens, outside of any sandbox that we are not in."""
    import _socket

    raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred
    process, user = (int.from_bytes(raw[at : at + 4], sys.byteorder) for at in (0, 4))
    theirs, ours = (os.readlink(f"/proc/{who}/ns/mnt") for who in (process, "self"))  # noqa: PTH115 - as above
    return user == os.getuid() and theirs == ours
