"""A short run of every fuzz target; `make fuzz` has the long one."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.ssh import signed_data
from hsmagent.ssh.signing_rules import judge
from tests.fuzz import elsewhere, free
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"
ROUNDS = 400
SECONDS = 5


def mutated(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            del data[at : at + chance.randint(1, 20)]
        elif kind == 1:
            data[at:at] = chance.randbytes(chance.randint(1, 4))
        elif kind == 2 and at < len(data):
            data[at] = chance.choice((0, 0x7F, 0x80, 0xFF, data[at] ^ 1 << chance.randrange(8)))
        else:
            piece = data[at : at + chance.randint(1, 40)]
            data[at:at] = piece * chance.randint(1, 3)
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds(name: str) -> None:
    target, seeds = TARGETS[name]
    chance = random.Random(name)
    for seed in seeds():
        target(seed)
        for _ in range(ROUNDS):
            data = mutated(seed, chance)
            try:
                target(data)
            except Exception:
                print(data.hex())  # noqa: T201 - to find it again
                raise


@pytest.mark.parametrize("found", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_what_was_found_before(found: Path) -> None:
    TARGETS[found.name.rpartition("-")[0]][0](found.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_guided_by_coverage(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", name, f"-max_total_time={SECONDS}",
         f"-artifact_prefix={tmp_path}/"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("our mail", b"Content-Type: text/plain\r\n\r\nHello\r\n"),
        ("openssl's mail", b"Content-Type: text/plain\r\n\r\nHello\r\n"),
        ("DER", b"\x31\x03\x02\x01\x01"),
        ("OpenPGP", b"text" + b"\x04\x00\x01\x08\x00\x00" + b"\x04\xff\0\0\0\x06"),
        ("OpenPGP", b"text" + b"\x05\x00\x01\x08\x00\x00" + b"\x05\xff" + bytes(7) + b"\x06"),
        ("OpenPGP", b"text" + b"\x06\x00\x01\x08" + bytes(4) + b"\x06\xff\0\0\0\x08"),
        ("JOSE", b"eyJhbGciOiJFUzI1NiJ9.e30"),
        ("TLS 1.3", b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + bytes(32)),
        ("TLS 1.2 client", b"\x01\0\0\x02ab\x02\0\0\x01c"),
        ("TLS 1.2 server", bytes(64) + b"\x03\0\x1d\x20" + bytes(32)),
    ],
)
def test_the_readers_of_other_protocols_take_their_own(name: str, data: bytes) -> None:
    assert elsewhere.READERS[name](data)


def test_what_is_free_is_free_in_the_seeds() -> None:
    """Else the target above would see nothing."""
    kinds = [
        judge(data, signed_data.read_userauth(data), free.circumstances()).kind
        for data in free.seeds()
    ]
    assert kinds == [*["ssh"] * 4, "sshsig", *["unknown"] * 3]
