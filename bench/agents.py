"""How quick the agent is, beside OpenSSH's ssh-agent with the same SoftHSM token, in one run.

usage: python -m bench.agents [--seconds N]

Both agents hold the same keys and answer the same requests from the same load generator, one
after the other on one machine, so that the ratios say something where absolute times do not.
"""

import argparse
import contextlib
import os
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.parts.agent.daemon import ANY_DATA, AgentProcess, unknown_data
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm

LIST = bytes([0, 0, 0, 1, 11])
SHA2_512 = 4


def packed(value: bytes) -> bytes:
    """Return an SSH string."""
    return struct.pack(">I", len(value)) + value


def sign_request(blob: bytes, flags: int) -> bytes:
    """Return a framed sign request over data as long as a login's."""
    body = b"\x0d" + packed(blob) + packed(unknown_data(180)) + struct.pack(">I", flags)
    return packed(body)


@dataclass(frozen=True, slots=True)
class Run:
    """What one load came to: answers a second, and the times of each in microseconds."""

    rate: float
    p50: float
    p99: float


def load(path: Path, request: bytes, clients: int, seconds: float) -> Run:
    """Keep `clients` connections asking for `seconds`; each asks again when it has its answer."""
    selector = selectors.DefaultSelector()
    sockets = []
    for _ in range(clients):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        selector.register(sock, selectors.EVENT_READ)
        sockets.append(sock)
    asked = {sock: send(sock, request) for sock in sockets}
    times: list[float] = []
    start = time.perf_counter()
    end = start + seconds
    now = start
    while now < end:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            check(sock.recv(65536))
            now = time.perf_counter()
            times.append(now - asked[sock])
            asked[sock] = send(sock, request)
    for sock in sockets:
        sock.recv(65536)
        sock.close()
    times.sort()
    return Run(
        rate=len(times) / (now - start),
        p50=statistics.median(times) * 1e6,
        p99=times[int(len(times) * 0.99)] * 1e6,
    )


def send(sock: socket.socket, request: bytes) -> float:
    """Send a request; return when."""
    sock.sendall(request)
    return time.perf_counter()


def check(answer: bytes) -> None:
    """Raise if the agent did not do what it was asked."""
    if answer[4] not in (12, 14):
        raise RuntimeError(f"the agent refused: {answer[:8].hex()}")


# -- the two agents --------------------------------------------------------------------------


def blobs(path: Path) -> dict[str, bytes]:
    """Return the key blobs that an agent lists, by algorithm."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(LIST)
        answer = sock.recv(65536)
    [count] = struct.unpack_from(">I", answer, 5)
    found, at = {}, 9
    for _ in range(count):
        [length] = struct.unpack_from(">I", answer, at)
        blob = answer[at + 4 : at + 4 + length]
        at += 4 + length
        [length] = struct.unpack_from(">I", answer, at)
        at += 4 + length
        [name] = struct.unpack_from(">I", blob)
        found[blob[4 : 4 + name].decode()] = blob
    return found


@contextlib.contextmanager
def openssh(folder: Path, token: SoftHsm) -> Iterator[Path]:
    """OpenSSH's ssh-agent with the token loaded through its PKCS#11 helper."""
    path = folder / "openssh.sock"
    environment = {**os.environ, **dict(token.env), "SSH_AUTH_SOCK": str(path)}
    askpass = folder / "askpass"
    askpass.write_text(f"#!/bin/sh\necho {PIN}\n")
    askpass.chmod(0o700)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], env=environment, stdout=-3)
    try:
        while not path.exists():
            time.sleep(0.01)
        asked = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(
            ["ssh-add", "-s", os.path.realpath(MODULE)],
            env={**environment, **asked},
            check=True,
            capture_output=True,
        )
        yield path
    finally:
        agent.terminate()
        agent.wait()


@contextlib.contextmanager
def hsmagent(folder: Path, token: SoftHsm) -> Iterator[Path]:
    """Our daemon with the same token, unlocked, and two workers."""
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    module = f'[[module]]\npath = "{MODULE}"\nworkers = 2\nenv = {{ {env} }}\n'
    agent = AgentProcess(folder / "h", module + ANY_DATA)
    agent.start()
    try:
        agent.unlock(PIN)
        yield agent.ssh_socket
    finally:
        agent.stop()


Loads = list[tuple[str, str, int, int, Callable[[Run], float], float]]
EC, RSA = "ecdsa-sha2-nistp256", "ssh-rsa"
# what it is called, key, flags, clients, which figure, the goal for ours ÷ theirs
LOADS: Loads = [
    ("P-256 signature, 1 client, p50 (µs)", EC, 0, 1, lambda run: run.p50, 0.5),
    ("P-256 signatures a second, 8 clients", EC, 0, 8, lambda run: run.rate, 2.5),
    ("P-256 signature, 64 clients, p99 (µs)", EC, 0, 64, lambda run: run.p99, 0.2),
    ("list identities, p50 (µs)", "", 0, 1, lambda run: run.p50, 0.7),
    ("RSA-2048 signatures a second, 8 clients", RSA, SHA2_512, 8, lambda run: run.rate, 1.2),
]


def measure(path: Path, seconds: float) -> list[float]:
    """Return the figure of every load on one agent."""
    keys = blobs(path)
    figures = []
    for _, key, flags, clients, figure, _ in LOADS:
        request = sign_request(keys[key], flags) if key else LIST
        load(path, request, clients, 0.3)  # warm
        figures.append(figure(load(path, request, clients, seconds)))
    return figures


def main() -> int:
    """Measure both, print the table, return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        token = SoftHsm.create(folder / "hsm")
        token.init_token("bench")
        token.generate("bench", "EC:prime256v1", "01", "ec")
        token.generate("bench", "rsa:2048", "02", "rsa")
        with openssh(folder, token) as path:
            theirs = measure(path, seconds)
        with hsmagent(folder, token) as path:
            ours = measure(path, seconds)
    missed = False
    print(f"{'':42}{'ssh-agent':>10}{'hsmagent':>10}{'ratio':>8}  goal")
    for (name, _, _, _, _, goal), their, our in zip(LOADS, theirs, ours, strict=True):
        ratio = our / their
        good = ratio >= goal if goal > 1 else ratio <= goal
        missed |= not good
        sign = "≥" if goal > 1 else "≤"
        print(
            f"{name:42}{their:10.0f}{our:10.0f}{ratio:8.2f}  {sign} {goal}{'' if good else '  ✗'}"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
