"""A short run of every fuzz target; `make fuzz` has the long one."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

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
