"""journald's native protocol: named fields in one datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Sends entries to journald; one that cannot be delivered at once is dropped."""

    def __init__(self, address: str = SOCKET) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one entry. Names are upper case; values may be any text."""
        with suppress(OSError):
            self._socket.sendto(encode(fields), self._address)


def reads_stderr() -> bool:
    """Whether the journal reads our stderr (systemd.exec(5), JOURNAL_STREAM).

    The variable alone does not tell: a terminal that a user unit has started inherits it.
    """
    try:
        stderr = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def journal() -> Journal | None:
    """Return the journal if it reads our stderr, else None."""
    return Journal() if reads_stderr() and Path(SOCKET).exists() else None


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram of one entry. Every value is written with its length, whatever is in it.

    NAME, LF, uint64 little-endian length, value, LF.
    """
    entry = b""
    for name, text in fields.items():
        value = text.encode("utf-8", "replace")
        entry += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return entry
