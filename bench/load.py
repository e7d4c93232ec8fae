"""Clients of an ssh agent that ask again as soon as they have their answer, and logins."""

import os
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIST = bytes([0, 0, 0, 1, 11])
EC, RSA = "ecdsa-sha2-nistp256", "ssh-rsa"
SHA2_512 = 4
_GOOD = (12, 14)  # SSH_AGENT_IDENTITIES_ANSWER, SSH_AGENT_SIGN_RESPONSE


@dataclass(frozen=True, slots=True)
class Run:
    """What one load came to: answers a second, their times in microseconds, and how many."""

    rate: float
    p50: float
    p99: float
    count: int
    cpu: float = 0.0  # microseconds of a processor for each answer

    @classmethod
    def of(cls, times: list[float], seconds: float) -> "Run":
        """Sum up the times of all answers."""
        times.sort()
        count, at = len(times), int(len(times) * 0.99)
        return cls(count / seconds, statistics.median(times) * 1e6, times[at] * 1e6, count)


def packed(value: bytes) -> bytes:
    """Return an SSH string."""
    return struct.pack(">I", len(value)) + value


def sign_request(kind: str, blob: bytes) -> bytes:
    """Return a framed request to sign a login (RFC 4252, section 7)."""
    algorithm, flags = ("rsa-sha2-512", SHA2_512) if kind == RSA else (kind, 0)
    session = b"\x80" + os.urandom(31)
    strings = b"alice", b"ssh-connection", b"publickey"
    data = packed(session) + b"\x32" + b"".join(map(packed, strings)) + b"\1"
    data += packed(algorithm.encode()) + packed(blob)
    return packed(b"\x0d" + packed(blob) + packed(data) + struct.pack(">I", flags))


def connected(path: Path) -> socket.socket:
    """Return a new connection to an agent."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def answers(path: Path) -> bool:
    """Tell whether an agent takes connections yet."""
    try:
        connected(path).close()
    except OSError:
        return False
    return True


def answer(sock: socket.socket) -> bytes:
    """Read one reply. RuntimeError when the agent did not do what it was asked."""
    data = sock.recv(1 << 18)
    while len(data) < 5 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        more = sock.recv(1 << 18)
        if not more:
            raise RuntimeError("the agent hung up")
        data += more
    if data[4] not in _GOOD:
        raise RuntimeError(f"the agent refused: {data[:8].hex()}")
    return data


def asked(path: Path, request: bytes) -> bytes:
    """Ask one thing over a connection of its own."""
    with connected(path) as sock:
        sock.sendall(request)
        return answer(sock)


def blobs(path: Path) -> list[bytes]:
    """Return the key blobs that an agent lists."""
    data = asked(path, LIST)
    [count] = struct.unpack_from(">I", data, 5)
    found, at = [], 9
    for _ in range(count):
        [length] = struct.unpack_from(">I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
        [length] = struct.unpack_from(">I", data, at)
        at += 4 + length
    return found


def request_for(path: Path, kind: str) -> bytes:
    """Return a request for the first key of a kind that an agent lists; LIST for none."""
    if not kind:
        return LIST
    return sign_request(kind, next(b for b in blobs(path) if b[4:].startswith(kind.encode())))


def load(path: Path, request: bytes, clients: int, seconds: float) -> Run:
    """Keep `clients` connections asking for `seconds`."""
    selector = selectors.DefaultSelector()
    sockets = [connected(path) for _ in range(clients)]
    since: dict[socket.socket, float] = {}
    for sock in sockets:
        selector.register(sock, selectors.EVENT_READ)
        sock.sendall(request)
        since[sock] = time.perf_counter()
    times: list[float] = []
    start = now = time.perf_counter()
    while now < start + seconds:
        for key, _ in selector.select():
            sock = key.fileobj  # type: ignore[assignment] # the sockets that were registered
            answer(sock)
            now = time.perf_counter()
            times.append(now - since[sock])
            sock.sendall(request)
            since[sock] = time.perf_counter()
    for sock in sockets:
        answer(sock)
        sock.close()
    selector.close()
    return Run.of(times, now - start)


def logins(path: Path, request: bytes, _clients: int, seconds: float) -> Run:
    """Do what ssh does, again and again: a new process that connects, lists, signs and ends."""
    times: list[float] = []
    start = now = time.perf_counter()
    while now < start + seconds:
        began = time.perf_counter()
        child = os.fork()
        if not child:
            _log_in(path, request)
        _, status = os.waitpid(child, 0)
        now = time.perf_counter()
        if status:
            raise RuntimeError("a login failed")
        times.append(now - began)
    return Run.of(times, now - start)


def _log_in(path: Path, request: bytes) -> None:
    status = 1
    try:
        with connected(path) as sock:
            for each in (LIST, request):
                sock.sendall(each)
                answer(sock)
        status = 0
    finally:
        os._exit(status)


def least(runs: Sequence[Run], figure: str) -> float:
    """Return one figure of the round that other work disturbed least."""
    found: float = min(getattr(run, figure) for run in runs)
    return found


def median(runs: Sequence[Run], figure: str) -> float:
    """Return the median of one figure ("rate", "p50", "p99", "cpu")."""
    found: float = statistics.median(getattr(run, figure) for run in runs)
    return found
