"""Signatures by the ten thousand while workers die: none wrong, none lost, nothing left behind."""

import asyncio
import gc
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import LoginNeeded, TokenError
from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.tokens import Tokens
from tests.parts.token.faulty import Faulty
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm

SIGNATURES = int(os.environ.get("SOAK_SIGNATURES", "200000"))
CALLERS = 64
WORKERS = 2
SECONDS_BETWEEN_DEATHS = 1.5
DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP)
# What Python's allocator keeps after the first thousands; a leak of 200 bytes a signature is 40 MB.
MEMORY_MARGIN = 16 << 20
DEADLINES = Deadlines(start=20, look=10, poll=5, login=10, pin_pad=10, operate=3, close=5)


def memory() -> int:
    """Return our resident size in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in own.read_text().split()}


class Soak:
    """64 callers, a person with a PIN, and an evil one with signals."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.signer = tokens.signers()[0]
        public = load_der_public_key(self.signer.key.spki)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        self.public = public
        self.count: Counter[str] = Counter()
        self.unlocking = asyncio.Lock()
        self.begun = 0

    async def unlock(self) -> None:
        async with self.unlocking:
            if not self.signer.token.logged_in:
                self.count["PINs typed"] += 1
                with suppress(TokenError):
                    await self.signer.token.login(bytearray(PIN.encode()))

    async def call(self) -> None:
        while self.begun < SIGNATURES:
            self.begun += 1
            data = os.urandom(32)
            while True:
                try:
                    signature = await self.signer.sign(Scheme.ECDSA_SHA256, data)
                except LoginNeeded:
                    self.count["refused, logged out"] += 1
                    await self.unlock()
                except TokenError:
                    self.count["refused, worker died"] += 1
                    await self.unlock()
                else:
                    break
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            der = utils.encode_dss_signature(r, s)
            self.public.verify(der, data, ec.ECDSA(hashes.SHA256()))  # raises when it is wrong
            self.count["right answers"] += 1

    async def kill(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_DEATHS)
            # Not in a login: SoftHSM writes its token's file then, and half a file is no token.
            async with self.unlocking:
                pids = self.tokens.modules()[0].pids
                if pids:
                    how = random.choice(DEATHS)
                    with suppress(ProcessLookupError):
                        os.kill(random.choice(pids), how)
                    self.count[how.name] += 1


async def test_signatures(
    faulty_module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hsm = SoftHsm.create(tmp_path / "hsm")
    hsm.init_token("soak")
    hsm.generate("soak", "EC:prime256v1", "01", "p256")
    faulty = Faulty.create(faulty_module, tmp_path / "faults", MODULE, hsm.env)
    others = children()
    tokens = Tokens(
        clock=time.monotonic,
        state_dir=tmp_path / "state",
        limits=lambda _: Limits(5, 20),  # logins run out, too
        on_change=lambda: None,
        deadlines=DEADLINES,
    )
    await tokens.add(ModuleSpec(faulty.module, workers=WORKERS, env=faulty.env))
    soak = Soak(tokens)
    begun, soak.begun = soak.begun, SIGNATURES - 5000  # to warm up
    await asyncio.gather(*(soak.call() for _ in range(CALLERS)))
    memory_before, descriptors_before = memory(), descriptors()
    soak.begun = begun
    evil = asyncio.create_task(soak.kill())
    before = time.monotonic()
    await asyncio.gather(*(soak.call() for _ in range(CALLERS)))
    seconds = time.monotonic() - before
    evil.cancel()
    async with asyncio.timeout(60):
        while tokens.modules()[0].state != "running":
            await asyncio.sleep(0.1)
    growth = memory() - memory_before
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what it is run for
            f"\n{dict(soak.count)} in {seconds:.0f} s; memory +{growth >> 10} KiB"
        )
    assert soak.count["right answers"] == SIGNATURES + 5000
    assert faulty.calls("C_Login") <= soak.count["PINs typed"] * WORKERS
    assert growth < MEMORY_MARGIN
    assert descriptors() == descriptors_before
    assert len(children() - others) == WORKERS
    await tokens.close()
    assert children() == others
