"""A hostile client of the real daemon: it goes on, does not grow, and serves the others."""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.softhsm import PIN

MB = 1024  # kB in /proc


def memory(agent: AgentProcess) -> int:
    """Return the daemon's resident memory in kB."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))  # waits while the daemon is behind with accepting
    sock.settimeout(20)
    return sock


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def shower(path: Path, rounds: int, seed: int) -> None:
    """Send frames of every type with random contents, cut off at random."""
    chance = random.Random(seed)
    for _ in range(rounds):
        with connect(path) as sock, suppress(OSError):
            for _ in range(20):
                body = bytes([chance.randrange(256)]) + chance.randbytes(chance.randrange(300))
                sock.sendall(framed(body))
            sock.sendall(framed(body)[: chance.randrange(1, 20)])


@contextmanager
def idle(path: Path, count: int) -> Iterator[None]:
    """Have another process hold so many connections that send nothing."""
    program = (
        "import resource, socket, sys;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({count + 50}, {count + 50}));"
        f"held = [socket.socket(socket.AF_UNIX) for _ in range({count})];"
        f"[sock.connect({str(path)!r}) for sock in held];"
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield
        process.communicate(b"")


def still_well(agent: AgentProcess) -> None:
    assert agent.process.poll() is None
    assert agent.run(["ssh-add", "-l"]).returncode == 0
    assert agent.hsmagent("status").returncode == 0


def test_random_frames_on_the_ssh_socket(agent: AgentProcess) -> None:
    shower(agent.ssh_socket, 20, 1)  # whatever is made once is made now
    before = memory(agent)
    shower(agent.ssh_socket, 200, 2)
    still_well(agent)
    assert memory(agent) - before < 8 * MB


@pytest.mark.parametrize("role", ["control", "mail"])
def test_random_frames_on_the_control_sockets(agent: AgentProcess, role: str) -> None:
    path = agent.runtime / f"{role}.sock"
    shower(path, 20, 3)
    before = memory(agent)
    shower(path, 100, 4)
    still_well(agent)
    assert memory(agent) - before < 8 * MB


def test_five_hundred_connections_that_send_nothing(agent: AgentProcess) -> None:
    with idle(agent.ssh_socket, 250), idle(agent.ssh_socket, 250):
        still_well(agent)
    still_well(agent)


def test_a_process_with_a_thousand_connections_keeps_nobody_out(agent: AgentProcess) -> None:
    before = len(agent.logged())
    with idle(agent.ssh_socket, 1100):
        still_well(agent)
        assert agent.logged()[before:].count("refused connections of process") == 1


@pytest.mark.parametrize("connections", [1, 50])
def test_who_locks_and_unlocks_without_end_keeps_nobody_waiting(
    agent: AgentProcess, connections: int
) -> None:
    passphrase = framed(b"x")
    pair = framed(b"\x16" + passphrase) + framed(b"\x17" + passphrase)
    flood = pair * (65536 // len(pair) // connections)
    hostile = [connect(agent.ssh_socket) for _ in range(connections)]
    for sock in hostile:
        sock.sendall(flood)
    waited, worked = [], []
    for _ in range(5):
        since, before = time.monotonic(), agent.processor_seconds()
        with connect(agent.ssh_socket) as sock:
            sock.sendall(framed(b"\x0b"))
            assert sock.recv(100_000)
        waited.append(time.monotonic() - since)
        worked.append(agent.processor_seconds() - before)
    for sock in hostile:
        sock.close()
    assert max(waited) < 0.5
    assert min(worked) < 0.02, "a hash takes about a millisecond"


def test_a_reader_that_never_reads(agent: AgentProcess) -> None:
    agent.unlock(PIN)
    before = memory(agent)
    with connect(agent.ssh_socket) as sock:
        sock.settimeout(2)
        with pytest.raises(TimeoutError):
            sock.sendall(framed(b"\x0b") * 1_000_000)
        still_well(agent)
        assert memory(agent) - before < 8 * MB


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b"[]",
        b'{"op": 3}',
        b'{"op": "frobnicate"}',
        b'{"op": "pubkey"}',
        b'{"op": "unlock", "token": []}',
        b'{"op": "sign_attributes", "attributes": "%%%"}',
        b'{"op": "sign_attributes", "attributes": "MAA=", "key": "", "scheme": "x"}',
        b'{"op": "unwrap", "length": 1000000}',
        b'{"op": "unwrap", "length": 32, "recipient": {"kind": "raw"}}',
        b"[" * 100_000,
        b'{"op": "status", "x": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
    ],
    ids=lambda body: bytes(body[:40]).hex(),
)
def test_a_malformed_request_gets_a_sentence(agent: AgentProcess, body: bytes) -> None:
    with connect(agent.control_socket) as sock:
        sock.sendall(framed(body))
        answer = sock.recv(65536)
    said = json.loads(answer[4:])
    assert "Traceback" not in said["error"]
    assert said["error"]
    still_well(agent)


def test_ssh_agent_rules_for_lengths(agent: AgentProcess) -> None:
    with connect(agent.ssh_socket) as sock:
        sock.sendall(framed(b"\x0d" + bytes(262_143)))
        assert sock.recv(100) == framed(b"\x05")
        sock.sendall((262_145).to_bytes(4, "big") + b"x")
        assert sock.recv(100) == b""
