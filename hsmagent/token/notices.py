"""Changes to files, told by the kernel (inotify(7)), so that nobody has to look again and again.

A notice says that something may have changed, not what. `blind` says that the kernel gives no
notices (it may have run out of watches): then one has to look. No notice comes for changes that
another machine makes to a shared folder.
"""

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from hsmagent.model import Listener

_IN_MODIFY, _IN_MOVED_FROM, _IN_MOVED_TO = 0x002, 0x040, 0x080
_IN_CREATE, _IN_DELETE = 0x100, 0x200
_IN_ONLYDIR = 0x01000000
_MASK = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_ONLYDIR

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_RECEIVE = 1 << 16

# A folder that we may not read, or that is gone: that it went shows in the folder above it.
_NOT_OURS = errno.EACCES, errno.ENOENT, errno.ENOTDIR

_LIBC = ctypes.CDLL(None, use_errno=True)

_Names = set[str] | None
"""The entries of a folder whose changes count; None: all."""


class Notices:
    """Watches files. on_notice: called in the running loop when some may have changed."""

    def __init__(self, on_notice: Listener) -> None:
        self._on_notice = on_notice
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[int, _Names] = {}
        self._noticed = False
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.blind: bool = self._descriptor < 0
        if not self.blind:
            self._loop.add_reader(self._descriptor, self._readable)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these files, too, and the entries of these folders. They need not be there yet."""
        if self.blind or self._descriptor < 0:
            return
        folders: dict[Path, _Names] = {}
        for folder, name in (place for path in paths for place in _places(path)):
            names = folders.setdefault(folder, set())
            if name is None or names is None:
                folders[folder] = None
            else:
                names.add(name)
        for folder, names in folders.items():
            watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
            if watch < 0 and ctypes.get_errno() not in _NOT_OURS:
                self.blind = True
            self._wanted[watch] = names

    def noticed(self) -> bool:
        """Whether there was a notice since the last call."""
        self._drain()
        there_was, self._noticed = self._noticed, False
        return there_was

    def _readable(self) -> None:
        self._drain()
        if self._noticed:
            self._on_notice()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._descriptor >= 0:
                for watch, name in _events(os.read(self._descriptor, _RECEIVE)):
                    names = self._wanted.get(watch)
                    # There is no name where a folder is gone, or the kernel has lost notices.
                    self._noticed |= not name or names is None or name in names


async def appeared(paths: Sequence[Path]) -> bool:
    """Wait until one of these files is there. Return False at once if the kernel tells nothing."""
    news = asyncio.Event()
    notices = Notices(news.set)
    try:
        while True:
            news.clear()
            notices.watch(paths)  # anew, since one of the folders above them may have been made
            if notices.blind:
                return False
            if any(os.access(path, os.F_OK) for path in paths):
                return True
            await news.wait()
    finally:
        notices.close()


def _places(path: Path) -> Iterator[tuple[Path, str | None]]:
    """Return where a change to a path shows: in which folder, and under which name there."""
    if _is_folder(path):
        yield path, None
    while not _is_folder(path.parent) and path != path.parent:
        path = path.parent
    yield path.parent, path.name


def _is_folder(path: Path) -> bool:
    """Whether it is one that we may see; `Path.is_dir` raises where we may not."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _events(raw: bytes) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(raw):
        watch, _mask, _cookie, size = _EVENT.unpack_from(raw, at)
        at += _EVENT.size + size
        yield watch, os.fsdecode(raw[at - size : at].rstrip(b"\0"))
