"""One process takes what all share: the loop's time, memory, log lines, dialogs, the lock's turn.

All but the dialogs against the real daemon, while another client lists keys and is waited for.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import lcm
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from hsmagent.errors import Refused
from hsmagent.prompt import words
from hsmagent.prompt.chain import Chain
from tests.attacks.conftest import Connect
from tests.daemon.conftest import Start, module_config
from tests.door.doubles import request
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.hostile import blob_of, is_prime, mpint, string
from tests.parts.token.softhsm import PIN, SoftHsm

FAILURE, SUCCESS = b"\x05", b"\x06"
ADD, ADD_CONSTRAINED, LOCK, UNLOCK = b"\x11", b"\x19", b"\x16", b"\x17"
SMARTCARD_CONSTRAINED = b"\x1a"
LIST = b"\x0b"


@pytest.fixture
def agent(start: Start, furnished: SoftHsm) -> AgentProcess:
    return start(module_config(furnished))


def while_busy(agent: AgentProcess, attack: Callable[[], object]) -> float:
    """Return the seconds of the daemon's processor that an attack costs."""
    before = agent.processor_seconds()
    attack()
    return agent.processor_seconds() - before


def rsa_frame(p: int, q: int, e: int = 65537) -> tuple[bytes, bytes]:
    """Return the message that adds a key, and the key's blob."""
    n, d = p * q, pow(e, -1, lcm(p - 1, q - 1))
    values = (n, e, d, pow(q, -1, p), p, q)
    blob = string(b"ssh-rsa") + mpint(e) + mpint(n)
    return ADD + string(b"ssh-rsa") + b"".join(map(mpint, values)) + string(b"x"), blob


def next_prime(number: int) -> int:
    return next(each for each in range(number | 1, number + 20_000, 2) if is_prime(each))


def test_odd_rsa_keys_keep_nobody_waiting(agent: AgentProcess, connect: Connect) -> None:
    """A key with one short prime signs several times as slowly as any that programs make."""
    frame, blob = rsa_frame(next_prime(1 << 520), (1 << 7600) - 1)
    attacker, victim = connect(agent), connect(agent)
    attacker.ask(frame)
    for _ in range(20):
        attacker.send(b"\x0d" + string(blob) + string(b"data") + (2).to_bytes(4, "big"))
    started = time.monotonic()
    assert victim.ask(LIST)[:1] == b"\x0c"
    waited = time.monotonic() - started
    taken = while_busy(agent, lambda: [attacker.reply() for _ in range(20)])
    assert waited < 1
    assert taken < 1


def test_many_connections_take_no_more_turns_than_one(
    agent: AgentProcess, connect: Connect
) -> None:
    """A signature by an added RSA key is the dearest answer that a short frame can ask for."""
    numbers = rsa.generate_private_key(65537, 4096).private_numbers()
    frame, blob = rsa_frame(numbers.p, numbers.q)
    attackers = [connect(agent)]
    while len(attackers) < 200:
        assert attackers[-1].ask(LIST)  # it is accepted, and not one too many in the backlog
        attackers.append(connect(agent))
    assert attackers[0].ask(frame) == SUCCESS
    for client in attackers:
        for _ in range(20):
            client.send(
                b"\x0d" + string(blob) + string(login(blob, b"me")) + (2).to_bytes(4, "big")
            )
    # Another program, which asks ten times one after the other.
    stat = f"/proc/{agent.process.pid}/stat"
    done = agent.run(["python3", "-c", LISTING, str(agent.ssh_socket), stat])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1, "seconds that the daemon spent on others meanwhile"
    assert attackers[0].reply()[:1] == b"\x0e"


LISTING = """
import os, socket, sys
def spent():
    fields = open(sys.argv[2]).read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
before = spent()
for _ in range(10):
    sock.sendall(b"\\0\\0\\0\\1\\x0b")
    assert sock.recv(65536)
print(spent() - before)
"""


def certificate(number: int) -> bytes:
    authority = ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    body = (
        string(b"ssh-ed25519-cert-v01@openssh.com")
        + string(b"nonce")
        + string(authority.public_key().public_bytes_raw())
        + bytes(8)
        + (1).to_bytes(4, "big")
        + string(b"id")
        + string(b"")
        + bytes(8)
        + b"\xff" * 8
        + string(b"") * 3
        + string(blob_of(authority))
    )
    return body + string(string(b"ssh-ed25519") + string(authority.sign(body)))


def extension(name: bytes, contents: bytes) -> bytes:
    return b"\xff" + string(name) + contents


def test_a_frame_of_certificates_costs_next_to_nothing(
    agent: AgentProcess, connect: Connect
) -> None:
    certificates = b"".join(string(certificate(number)) for number in range(1, 401))
    constraints = extension(b"associated-certs-v00@openssh.com", b"\0" + string(certificates))
    frame = SMARTCARD_CONSTRAINED + string(b"/usr/lib/none.so") + string(b"") + constraints
    client = connect(agent)

    def attack() -> None:
        for _ in range(10):
            assert client.ask(frame) == FAILURE

    assert while_busy(agent, attack) < 0.2


def test_keys_with_large_constraints_take_bounded_memory(
    agent: AgentProcess, connect: Connect
) -> None:
    host = ed25519.Ed25519PrivateKey.generate()
    hop = string(b"") + string(b"host") + string(b"")
    target = hop + b"".join(string(blob_of(host)) + b"\0" for _ in range(40))
    origin = string(b"") * 3
    way = string(string(origin) + string(target) + string(b""))
    ways = extension(b"restrict-destination-v00@openssh.com", string(way * 90))
    client, before = connect(agent), memory(agent)
    answers = set()
    for number in range(1, 100):
        key = ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
        public = key.public_key().public_bytes_raw()
        seed = key.private_bytes_raw()
        fields = string(b"ssh-ed25519") + string(public) + string(seed + public) + string(b"x")
        answers.add(client.ask(ADD_CONSTRAINED + fields + ways))
    assert answers == {SUCCESS, FAILURE}
    assert memory(agent) - before < 32 << 10


def memory(agent: AgentProcess) -> int:
    """Return the daemon's resident memory in kB."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_loop_of_wrong_passphrases_keeps_the_right_one_from_nobody(
    agent: AgentProcess, connect: Connect
) -> None:
    owner = connect(agent)
    assert owner.ask(LOCK + string(b"right")) == SUCCESS
    attackers = [connect(agent) for _ in range(20)]
    wrong = UNLOCK + string(b"wrong")
    for client in attackers:
        for _ in range(200):
            client.send(wrong)
    # Another program: this test's process has its own attempts in the row.
    done = agent.run(["python3", "-c", UNLOCKING, str(agent.ssh_socket)])
    assert done.stdout == "06\n", done.stderr


UNLOCKING = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
body = b"\\x17\\0\\0\\0\\5right"
sock.sendall(len(body).to_bytes(4, "big") + body)
print(sock.recv(100)[4:].hex())
"""


def test_refusals_fill_no_disk(agent: AgentProcess, connect: Connect) -> None:
    client = connect(agent)
    for _ in range(2000):
        assert client.ask(b"\x12" + string(b"no such key")) == FAILURE
    assert agent.logged().count("answered with a failure") < 100


def test_one_process_pushes_nobody_out_of_the_activity_log(
    agent: AgentProcess, connect: Connect
) -> None:
    client = connect(agent)
    key = ed25519.Ed25519PrivateKey.generate()
    public, seed = key.public_key().public_bytes_raw(), key.private_bytes_raw()
    fields = string(b"ssh-ed25519") + string(public) + string(seed + public) + string(b"x")
    assert client.ask(ADD + fields) == SUCCESS
    for number in range(1500):
        assert client.sign(blob_of(key), login(blob_of(key), f"user{number}".encode()))
    entries = agent.json("log")["entries"]
    assert sum(entry["count"] for entry in entries) == 1500
    assert len(entries) < 400


DECRYPTS = """
import sys
from hsmagent.control.client import MAIL, Daemon
from hsmagent.errors import Refused
from hsmagent.control.values import to_base64

daemon = Daemon(sys.argv[1], 30, MAIL)
[key] = [each["spki"] for each in daemon.call("keys")["keys"] if each["can_decrypt"]]
names = dict.fromkeys(("padding", "oaep_hash", "mgf_hash"), "sha256") | {"padding": "pkcs1"}
recipient = {"kind": "rsa", "label": "", "encrypted_key": to_base64(bytes(255) + b"2"), **names}
done = 0
try:
    for _ in range(int(sys.argv[2])):
        daemon.call("unwrap", key=key, length=32, recipient=recipient, context={})
        done += 1
except Refused as error:
    print(error)
print(done)
"""


def test_a_loop_of_decryptions_keeps_no_mail_from_anybody(agent: AgentProcess) -> None:
    assert agent.unlock(PIN).returncode == 0

    def decrypts(times: int) -> list[str]:
        done = agent.run([sys.executable, "-c", DECRYPTS, str(agent.runtime), str(times)])
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refused, done = decrypts(200)
    assert "too many decryptions" in refused
    assert int(done) < 100
    assert decrypts(5) == ["5"]


def login(blob: bytes, user: bytes, algorithm: bytes = b"ssh-ed25519") -> bytes:
    return (
        string(bytes(range(128, 160)))
        + b"\x32"
        + b"".join(map(string, (user, b"ssh-connection", b"publickey")))
        + b"\x01"
        + string(algorithm)
        + string(blob)
    )


class Nay:
    """A prompter whose person always says no."""

    name = "nay"

    def __init__(self) -> None:
        self.asked = 0

    async def ask_pin(self, dialog: object) -> None:
        raise NotImplementedError

    async def confirm(self, text: object) -> bool:
        self.asked += 1
        return False

    async def notice(self, text: object) -> None:
        raise NotImplementedError


def chain_of(person: Nay) -> Chain:
    async def environment() -> dict[str, str]:
        return {}

    return Chain([person], environment, lambda: 0.0)


async def test_another_user_to_log_in_as_is_the_same_question() -> None:
    person = Nay()
    chain = chain_of(person)
    for number in range(5):
        wish = request(summary=f"log in as user{number}")
        assert not await chain.confirm(words.confirm(wish))
    assert person.asked == 1


async def test_dialogs_of_one_process_leave_room_for_another() -> None:
    person = Nay()
    chain = chain_of(person)
    for number in range(30):
        try:
            await chain.confirm(words.confirm(request(host=f"host{number}")))
        except Refused:
            continue
    before, another = person.asked, request(host="mine")
    process = replace(another.peer.process, pid=another.peer.process.pid + 1)
    mine = replace(another, peer=replace(another.peer, process=process))
    assert not await chain.confirm(words.confirm(mine))
    assert person.asked == before + 1
