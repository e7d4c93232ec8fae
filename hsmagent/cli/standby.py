"""`hsmagent-gpgsm --verify` as git calls it, done by a process that stands by: the end that serves.

It is forked off the first such program before that has read anything foreign, and forks a process
for each request: what a hostile signature does there reaches nobody else's, and roots, CRLs and
configuration are read anew each time. It opens nothing and writes nothing for whoever asks but by
the descriptors that it is handed, so that it can do for nobody what he could not do himself. It
knows no secret and no daemon. `standby_client` tells the protocol.
"""

import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hsmagent.cli import output, standby_sample
from hsmagent.cli.gpgsm_verify import verify_open
from hsmagent.cli.mail_programs import over_keys
from hsmagent.cli.standby_client import BEGUN, DESCRIPTORS, PATIENCE, READY, Standby
from hsmagent.cli.trust import judge
from hsmagent.daemon.listening import listen
from hsmagent.errors import HsmAgentError
from hsmagent.mail import verify
from hsmagent.mail.cms import signers
from hsmagent.mail.spool import Memory
from hsmagent.mail.trust import Anchors

# Seconds without a request, and altogether, after which it ends.
IDLE, LONGEST = 10.0, 60.0
LOOK = 1.0  # seconds between two looks whether what was imported is still what is installed
MOST = 8  # requests at one time; whoever comes then does the work himself
_MESSAGE = 1 << 20
_NOT_FOR_US = 1


def leave(wish: Standby) -> None:
    """Fork off a process that stands by, unless there is one, or none can be had."""
    _try_out()
    with suppress(OSError):
        if _has_threads() or os.fork():
            return  # a fork leaves threads behind; and nobody waits for it, as it outlives us
        try:
            _let_go()
            _stand_by(Path(wish.path), wish.circumstances)
        finally:
            os._exit(0)


def _has_threads() -> bool:
    return len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208 - a count


def _let_go() -> None:
    """Leave the session, the descriptors and the folder that we were started with.

    The signals that we need may be ignored or blocked there, and so here.
    """
    os.setsid()
    for needed in (signal.SIGCHLD, signal.SIGIO):
        signal.signal(needed, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names
        with suppress(OSError):
            os.close(int(name))
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
    os.chdir("/")
    Path("/proc/self/comm").write_text("gpgsm-standby")


def _stand_by(path: Path, circumstances: bytes) -> None:
    """Serve until nobody asks. Raises UsageError where another one does."""
    listening = listen(path, socket.SOCK_SEQPACKET)
    bound = path.lstat()
    try:
        gc.freeze()  # what the collector does not look at stays shared with every fork
        _serve(listening, circumstances)
    finally:
        with suppress(OSError):
            if os.path.samestat(path.lstat(), bound):
                path.unlink()


def _try_out() -> None:
    """Verify once: what is imported and set up at first use is there then, for every fork."""
    data = b64decode(standby_sample.SIGNATURE)
    given = signers.read(Memory(data)).certificates
    roots = tuple(one for one in given if one.issuer_der == one.subject_der)
    known = verify.Judge(Anchors(roots), standby_sample.MOMENT)
    found = verify.detached(Memory(data), signers.Covered(lambda: iter(())), known, "")
    for signature in found:
        signature.text()
    with suppress(HsmAgentError, OSError):
        judge()


def _serve(listening: socket.socket, circumstances: bytes) -> None:
    """Answer until it is time to end."""
    imported = _imported()
    begun = looked = time.monotonic()
    running = 0
    while select.select([listening], [], [], IDLE)[0]:
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            running -= 1
            if os.waitstatus_to_exitcode(ended[1]) == _NOT_FOR_US:
                return  # the next one to ask leaves another behind
        if (now := time.monotonic()) > looked + LOOK:
            looked = now
            if now > begun + LONGEST or imported != _imported():
                return
        with suppress(BlockingIOError), listening.accept()[0] as connection:
            if running < MOST:
                running += 1
                if not os.fork():
                    listening.close()
                    _answer(connection, circumstances)


def _imported() -> dict[str, tuple[int, int] | None]:
    """Return the files of all modules, and what changes when one is replaced."""
    files = {getattr(module, "__file__", None) for module in tuple(sys.modules.values())}
    return {file: _stamp(file) for file in files if file}


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - hundreds of files
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


# -- the process of one request --------------------------------------------------------------


def _answer(connection: socket.socket, circumstances: bytes) -> NoReturn:
    status = 0
    try:
        status = _request(connection, circumstances)
    finally:
        os._exit(status)


def _request(connection: socket.socket, circumstances: bytes) -> int:
    """Do what one asks for. Return how we exit. Raises OSError or ValueError where we cannot."""
    connection.settimeout(PATIENCE)
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred
    if int.from_bytes(raw[4:8], sys.byteorder) != os.getuid():
        return 0
    if (theirs := connection.recv(_MESSAGE)) != circumstances:
        return _NOT_FOR_US if theirs else 0
    connection.send(READY)
    _, handed_over, _, _ = socket.recv_fds(connection, 1, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    *standard, status, signature = handed_over
    connection.settimeout(None)
    _end_with(connection)
    connection.send(BEGUN)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - open to the end
    output.prepare()
    with open(signature, "rb") as file:  # noqa: PTH123 - a descriptor
        done = over_keys(lambda _: verify_open(file, str(status)))
    connection.send(bytes([output.flushed(done)]))
    return 0


def _end_with(connection: socket.socket) -> None:
    """Have SIGIO end us when whoever asks is gone, whatever we do then (fcntl(2), O_ASYNC)."""
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
