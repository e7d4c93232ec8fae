"""Tokens on a SoftHSM, and a clock that only the test moves."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hsmagent.model import ModuleSpec
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.tokens import Tokens
from tests.parts.token.faulty import Faulty, build
from tests.parts.token.softhsm import MODULE, SoftHsm


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """Make a token "work" with one key of each kind. Tests do not change it."""
    hsm = SoftHsm.create(tmp_path_factory.mktemp("hsm") / "shared")
    hsm.init_token("work")
    hsm.generate("work", "EC:prime256v1", "01", "p256")
    hsm.generate("work", "EC:secp384r1", "02", "p384")
    hsm.generate("work", "EC:secp521r1", "03", "p521")
    hsm.generate("work", "EC:edwards25519", "04", "ed25519")
    hsm.generate("work", "rsa:2048", "05", "rsa")
    hsm.generate("work", "EC:brainpoolP256r1", "06", "brainpool")
    return hsm


@pytest.fixture
def own_hsm(tmp_path: Path) -> SoftHsm:
    """Make a SoftHSM with one token "own" and one P-256 key, for tests that change it."""
    hsm = SoftHsm.create(tmp_path / "hsm")
    hsm.init_token("own")
    hsm.generate("own", "EC:prime256v1", "01", "p256")
    return hsm


@pytest.fixture(scope="session")
def faulty_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the module that misbehaves on command."""
    return build(tmp_path_factory.mktemp("faulty"))


@pytest.fixture
def faulty(faulty_module: Path, own_hsm: SoftHsm, tmp_path: Path) -> Faulty:
    """Put it in front of a SoftHSM of the test's own."""
    return Faulty.create(faulty_module, tmp_path / "faults", MODULE, own_hsm.env)


NewTokens = Callable[..., Tokens]


@pytest.fixture
async def new_tokens(tmp_path: Path, clock: FakeClock) -> AsyncIterator[NewTokens]:
    """Make Tokens that are closed after the test; by keyword: limits, clock, deadlines."""
    made = []

    def make(**changes: object) -> Tokens:
        arguments = {
            "clock": clock,
            "state_dir": tmp_path / "state",
            "limits": lambda _: Limits(900, 28800),
            "on_change": lambda: None,
            "deadlines": Deadlines(close=5),
        }
        tokens = Tokens(**(arguments | changes))  # type: ignore[arg-type]
        made.append(tokens)
        return tokens

    yield make
    for tokens in made:
        await tokens.close()


@pytest.fixture
async def tokens(hsm: SoftHsm, new_tokens: NewTokens) -> Tokens:
    """Tokens with the shared SoftHSM."""
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=hsm.env))
    return tokens
