"""Digests of contents: a large one is hashed in a thread while the next piece of it is read."""

import hashlib
from collections.abc import Iterator

from hsmagent.mail.spool import CHUNK

_AHEAD = 4


def of(name: str, chunks: Iterator[bytes]) -> tuple[bytes, int]:
    """Return the digest of all chunks by a hash that hashlib knows, and how many bytes they are."""
    state, length = hashlib.new(name), 0
    for chunk in chunks:
        state.update(chunk)
        length += len(chunk)
        if length > CHUNK:
            length += _update(state, filter(None, chunks))
    return state.digest(), length


def _update(state: "hashlib._Hash", pieces: Iterator[bytes]) -> int:
    from queue import Queue  # only now: what is small is signed before this is imported
    from threading import Thread

    length, waiting = 0, Queue[bytes](_AHEAD)

    def work() -> None:
        while chunk := waiting.get():
            state.update(chunk)

    thread = Thread(target=work)
    thread.start()
    try:
        for chunk in pieces:
            waiting.put(chunk)
            length += len(chunk)
    finally:
        waiting.put(b"")
        thread.join()
    return length
