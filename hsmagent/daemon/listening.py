"""Where our sockets lie: folder 0700, socket 0600, one agent at a time."""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hsmagent.errors import UsageError
from hsmagent.folders import changeable_by_others

BACKLOG = 128
# How long to wait for another agent that starts. It looks and binds in far less.
LOCK_SECONDS = 2.0


class Sockets:
    """The sockets that we listen on: those that systemd made, by name, and those we bind.

    folder: where a socket NAME is bound, as NAME.sock.
    """

    def __init__(self, folder: Path, given: Mapping[str, socket.socket]) -> None:
        self.given = given
        self._folder = folder
        self._bound: set[str] = set()

    def listen(self, name: str) -> socket.socket:
        """Return the listening socket of this name. Raises UsageError."""
        if name in self.given:
            return self.given[name]
        make_folder(self._folder)
        listening = listen(self._path(name))
        self._bound.add(name)
        return listening

    def unbind(self, name: str) -> None:
        """Take our file away, before we stop listening: after that, it may be another agent's."""
        if name in self._bound:
            self._bound.remove(name)
            self._path(name).unlink(missing_ok=True)

    def unbind_all(self) -> None:
        """Take all our files away."""
        for name in tuple(self._bound):
            self.unbind(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.sock"


def make_folder(folder: Path) -> None:
    """Make the folder for our sockets, 0700.

    Raises UsageError if it cannot be made, or another user could reach in.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    if above := changeable_by_others(str(folder)):
        raise UsageError(f"{folder} lies in {above}, which others may change; choose another place")
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UsageError(f"{folder} is not a directory of ours; remove it")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def listen(path: Path) -> socket.socket:
    """Bind a stream socket at `path`, 0600, in place of one that nobody answers on.

    Raises UsageError when somebody does answer there, or when the path cannot be bound.
    """
    with _alone_in(path.parent):
        if answers(path):
            raise UsageError(f"another agent already answers at {path}; stop it first")
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise UsageError(f"{path} is there and is not a socket; remove it")
            path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # umask rather than chmod: the socket must not be open to others for a moment.
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise UsageError(f"cannot listen at {path}: {error.strerror or error}") from None
        finally:
            os.umask(before)
    listening.settimeout(0)
    return listening


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let agents that start at one time take turns: each looks, then binds.

    Whoever may read the folder can hold this lock. That delays us, and does no more.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot listen in {folder}: {error.strerror}") from None
    try:
        _try_to_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _try_to_lock(descriptor: int) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_SECONDS / 100)
        else:
            return


def answers(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (TimeoutError, BlockingIOError):
            return True  # a full backlog is still somebody
        except OSError:
            return False
        return True
