"""Where a message is kept while we look at it: bytes that are written once and read at any offset.

A small message stays in memory. A larger one goes to a file that never has a name, in the runtime
folder (memory, private to the user) or else in TMPDIR. A sealed spool encrypts what reaches the
file with a key that only this process has, so that no decrypted mail lies on a disk.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol, Self

from hsmagent.errors import HsmAgentError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CTR

CHUNK = 512 * 1024
IN_MEMORY = 1024 * 1024
MAX_MESSAGE = 512 * 1024 * 1024
MAX_FILE = (1 << 36) - 32  # what AES-GCM encrypts under one nonce (NIST SP 800-38D, 5.2.1.1)
_BLOCK = 16
_WINDOW = 16 * 1024
_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108 - the files there never have a name


class Source(Protocol):
    """Bytes that can be read again and again."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A Source over bytes that are already there."""

    data: bytes

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return a slice."""
        return self.data[offset : offset + count]


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a Source: from `start` up to, not including, `end`."""

    source: Source
    start: int
    end: int

    @classmethod
    def whole(cls, source: Source) -> "Region":
        """All of `source`."""
        return cls(source, 0, source.size)

    @property
    def size(self) -> int:
        """How many bytes it spans."""
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes, CHUNK at a time."""
        offset = self.start
        while offset < self.end:
            data = self.source.read_at(offset, min(CHUNK, self.end - offset))
            if not data:
                raise HsmAgentError("the message ended while it was read")
            offset += len(data)
            yield data

    def read(self, limit: int, what: str) -> bytes:
        """Return all of it; UsageError when it is larger than `limit`."""
        if self.size > limit:
            raise UsageError(f"{what} has {self.size} bytes; {limit} are allowed")
        return b"".join(self.chunks())


class OpenFile:
    """A Source over a regular file that is not ours: others may be able to change it meanwhile."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.size = size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`."""
        return os.pread(self._file.fileno(), count, offset)


class Spool:
    """A Source that is filled by `write`. `close` (or the end of `with`) forgets the bytes.

    limit: how many bytes it takes at most; 0: MAX_MESSAGE.
    """

    def __init__(self, *, sealed: bool = False, limit: int = 0) -> None:
        self._memory = bytearray()
        self._fd: int | None = None
        self._size = 0
        self._sealed = sealed
        self._limit = limit or MAX_MESSAGE
        self._seal: _Seal | None = None
        self._window, self._window_at = b"", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many bytes were written."""
        return self._size

    def write(self, data: bytes | bytearray) -> None:
        """Append; UsageError above the limit."""
        if self._size + len(data) > self._limit:
            raise UsageError(f"the message is larger than {self._limit >> 20} MiB")
        if self._fd is None and self._size + len(data) > IN_MEMORY:
            self._fd = _unnamed_file(self._limit)
            self._seal = _Seal() if self._sealed else None
            held, self._memory = self._memory, bytearray()
            self._append(self._fd, bytes(held))
        if self._fd is None:
            self._memory += data
        else:
            self._append(self._fd, data)
        self._size += len(data)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Append every chunk."""
        for chunk in chunks:
            self.write(chunk)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`."""
        if self._fd is None:
            return bytes(memoryview(self._memory)[offset : offset + count])
        if self._seal is None:
            return os.pread(self._fd, count, offset)
        at = offset - self._window_at
        if not 0 <= at <= at + count <= len(self._window):
            # _WINDOW bytes are decrypted at once, since a million small reads may come in a row.
            at = offset % _BLOCK
            self._window_at = offset - at
            sealed = os.pread(self._fd, max(_WINDOW, at + count), self._window_at)
            self._window = self._seal.open(sealed, self._window_at)
        return self._window[at : at + count]

    def close(self) -> None:
        """Forget everything."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._memory = bytearray()
        self._window = b""
        self._size = 0

    def _append(self, fd: int, data: bytes | bytearray) -> None:
        view = memoryview(data if self._seal is None else self._seal.close(data))
        while view:
            view = view[os.write(fd, view) :]


class _Seal:
    """AES-256-CTR under a key of its own, for one file that is only ever appended to."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._writer = self._cipher(0).encryptor()

    def _cipher(self, block: int) -> "Cipher[CTR]":
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import AES
        from cryptography.hazmat.primitives.ciphers.modes import CTR

        return Cipher(AES(self._key), CTR(block.to_bytes(_BLOCK, "big")))

    def close(self, data: bytes | bytearray) -> bytes:
        return self._writer.update(data)

    def open(self, data: bytes, offset: int) -> bytes:
        return self._cipher(offset // _BLOCK).decryptor().update(data)


def fill(spool: Spool, file: IO[bytes]) -> None:
    """Copy `file` to its end into `spool`."""
    spool.writelines(iter(lambda: file.read(CHUNK), b""))


def _unnamed_file(limit: int) -> int:
    named = (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"))
    folders = [folder for folder in (*named, *_FOLDERS) if folder]
    # By room, since the runtime folder is small on small machines. The sort is stable, so folders
    # with room enough keep their order.
    for folder in sorted(folders, key=lambda folder: min(_room(folder), limit), reverse=True):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
    raise HsmAgentError("no folder for a temporary file; set TMPDIR to one that can be written")


def _room(folder: str) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
