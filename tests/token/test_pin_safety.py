"""Whatever happens in whatever order: the token counts no try that a person did not type."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hsmagent.errors import TokenError
from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.tokens import Tokens
from hsmagent.worker import spec
from tests.parts.token.faulty import Action, Faulty
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import FakeClock

if TYPE_CHECKING:
    from hsmagent.token.token import Token

# A hang costs this long; a healthy SoftHSM answers much sooner even on a busy machine.
DEADLINES = Deadlines(start=10, look=1, poll=1, login=1, pin_pad=1, operate=1, close=2)
TRIES = 3
WRONG = "11111111"

faults = st.sampled_from(
    [
        (Action.CRASH, 0),
        (Action.HANG, 0),
        (Action.RETURN, spec.CKR_DEVICE_ERROR),
        (Action.RETURN, spec.CKR_USER_NOT_LOGGED_IN),
        (Action.RETURN, spec.CKR_USER_ALREADY_LOGGED_IN),
        (Action.LIE, spec.CKR_DEVICE_ERROR),
        (Action.LIE, spec.CKR_GENERAL_ERROR),
    ]
)
functions = st.sampled_from(
    [
        "C_Login",
        "C_Logout",
        "C_OpenSession",
        "C_CloseSession",
        "C_GetSessionInfo",
        "C_GetTokenInfo",
        "C_GetSlotList",
        "C_FindObjects",
        "C_SignInit",
        "C_Sign",
    ]
)


class PinSafety(RuleBasedStateMachine):
    """A person, a token with three tries, and bad luck."""

    module: Path
    real: SoftHsm

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.typed = self.wrong = 0
        self.workers = 1
        self.token: Token | None = None

    def do(self, awaitable: Awaitable[Any]) -> None:
        """Await it; a failure that is told is a fine outcome."""

        async def run() -> None:
            async with asyncio.timeout(60):
                with suppress(TokenError):
                    await awaitable

        self.runner.run(run())

    @initialize(workers=st.integers(1, 2))
    def begin(self, workers: int) -> None:
        self.workers = workers
        self.faulty = Faulty.create(self.module, self.folder / "faults", MODULE, self.real.env)
        self.faulty.set(
            tries_max=TRIES,
            tries_left=TRIES,
            slot_flags=spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT,
        )

        async def load() -> None:
            self.tokens = Tokens(
                clock=self.clock,
                state_dir=self.folder,
                limits=lambda _: Limits(900, 28800),
                on_change=lambda: None,
                deadlines=DEADLINES,
            )
            await self.tokens.add(
                ModuleSpec(self.faulty.module, workers=workers, env=self.faulty.env)
            )

        self.runner.run(load())
        self.token = self.tokens.token(self.tokens.statuses()[0].id)

    async def log_in(self, pin: str) -> None:
        assert self.token is not None
        self.typed += 1
        self.wrong += pin != PIN
        typed = bytearray(pin.encode())
        try:
            await self.token.login(typed)
        finally:
            assert not any(typed), "a PIN was left in memory"

    @rule()
    def right_pin(self) -> None:
        self.do(self.log_in(PIN))

    @rule()
    def wrong_pin(self) -> None:
        self.do(self.log_in(WRONG))

    @rule()
    def two_people(self) -> None:
        async def both() -> None:
            await asyncio.gather(self.log_in(WRONG), self.log_in(PIN), return_exceptions=True)

        self.do(both())

    @rule()
    def sign(self) -> None:
        for signer in self.tokens.signers():
            self.do(signer.sign(Scheme.ECDSA_SHA256, b"data"))

    @rule()
    def sign_much(self) -> None:
        async def many() -> None:
            signing = [
                signer.sign(Scheme.ECDSA_SHA256, b"data")
                for signer in self.tokens.signers()
                for _ in range(9)
            ]
            await asyncio.gather(*signing, return_exceptions=True)

        self.do(many())

    @rule()
    def log_out(self) -> None:
        assert self.token is not None
        self.do(self.token.logout())

    @rule()
    def look(self) -> None:
        self.do(self.tokens.refresh())

    @rule(seconds=st.sampled_from([60, 901, 30000]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(function=functions, fault=faults, skip=st.integers(0, 3))
    def break_something(self, function: str, fault: tuple[Action, int], skip: int) -> None:
        self.faulty.strike(function, fault[0], fault[1], skip=skip)

    @rule()
    def kill_a_worker(self) -> None:
        for pid in self.tokens.modules()[0].pids[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @rule()
    def unplug(self) -> None:
        self.faulty.unplug()

    @rule()
    def plug(self) -> None:
        self.faulty.plug()

    @rule()
    def reset_the_card(self) -> None:
        self.faulty.reset_card()

    @rule()
    def unblock(self) -> None:
        self.faulty.set(tries_left=TRIES)

    @invariant()
    def every_try_was_typed(self) -> None:
        if self.token is None:
            return
        assert self.faulty.calls("C_Login") <= self.typed * self.workers
        assert self.faulty.get("wrong_pins") <= self.wrong

    def teardown(self) -> None:
        if self.token is not None:
            self.faulty.heal()
            self.runner.run(self.tokens.close())
        self.runner.close()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def machine(faulty_module: Path, tmp_path_factory: pytest.TempPathFactory) -> type[PinSafety]:
    hsm = SoftHsm.create(tmp_path_factory.mktemp("pins") / "hsm")
    hsm.init_token("pins")
    hsm.generate("pins", "EC:prime256v1", "01", "p256")
    return type("PinSafetyHere", (PinSafety,), {"module": faulty_module, "real": hsm})


def test_no_try_that_nobody_typed(machine: type[PinSafety]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("PIN_SAFETY_EXAMPLES", "8")),
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
