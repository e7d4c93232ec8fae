"""Every Cryptoki call we make, times everything that may become of it.

The daemon stays up, every request is answered within its deadline, no PIN is tried that nobody
typed, and when the fault is over the next request works.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.errors import TokenError
from hsmagent.model import KeyType, ModuleSpec, Scheme
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.signer import TokenSigner
from hsmagent.token.tokens import Tokens
from hsmagent.worker.spec import rv_name
from tests.parts.token.faulty import FOREVER, FUNCTIONS, Action, Faulty
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import FakeClock

DEADLINES = Deadlines(start=3, look=2, poll=2, login=2, pin_pad=2, operate=2, close=3)
# A look, a login, its look and an operation: each has its deadline; and a busy machine.
ROUND_SECONDS = 40

PLAUSIBLE = [
    *(0x002, 0x003, 0x005, 0x006, 0x007, 0x020, 0x021, 0x030, 0x031, 0x032, 0x040, 0x050, 0x054),
    *(0x060, 0x068, 0x070, 0x071, 0x082, 0x090, 0x091, 0x0A0, 0x0A3, 0x0A4, 0x0B0, 0x0B1, 0x0B3),
    *(0x0E0, 0x0E1, 0x100, 0x101, 0x102, 0x150, 0x190, 0x191, 0x80000001),
]
FAULTS = [
    (Action.HANG, 0),
    (Action.CRASH, 0),
    *((Action.GARBAGE, length) for length in (0, 1, 2**31, 2**62, 2**64 - 1)),
    *((Action.RETURN, rv) for rv in PLAUSIBLE),
    *((Action.LIE, rv) for rv in (0x005, 0x030, 0x101)),
]


def name_of(fault: tuple[Action, int]) -> str:
    action, argument = fault
    if action in {Action.RETURN, Action.LIE}:
        return f"{action.name}-{rv_name(argument)}"
    return f"{action.name}-{argument:x}" if argument else action.name


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    hsm = SoftHsm.create(tmp_path_factory.mktemp("matrix") / "hsm")
    hsm.init_token("matrix")
    hsm.generate("matrix", "EC:prime256v1", "01", "p256")
    hsm.generate("matrix", "rsa:2048", "02", "rsa")
    return hsm


class Person:
    """Types the right PIN whenever it is wanted, and counts how often."""

    def __init__(self, faulty: Faulty, tokens: Tokens) -> None:
        self.faulty = faulty
        self.tokens = tokens
        self.typed = 0

    async def use_everything(self) -> None:
        """List, log in, sign, decrypt, derive and log out. Raises TokenError."""
        await self.tokens.refresh()
        if not self.tokens.signers():
            raise TokenError("no keys")
        for signer in self.tokens.signers():
            if not signer.token.logged_in:
                self.typed += 1
                await signer.token.login(bytearray(PIN.encode()))
            await use(signer)
        await self.tokens.logout_all()


async def use(signer: TokenSigner) -> None:
    """Do all that the key can, and see that the results are right."""
    public = load_der_public_key(signer.key.spki)
    if isinstance(public, rsa.RSAPublicKey):
        await signer.sign(Scheme.RSA_PKCS1_SHA256, b"data")
        block = b"\0\2" + b"z" * 254
        numbers = public.public_numbers()
        ciphertext = pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")
        assert await signer.decrypt_raw(ciphertext) == block
    if isinstance(public, ec.EllipticCurvePublicKey):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
        other = ec.generate_private_key(public.curve)
        point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert await signer.derive(point, cofactor=False) == other.exchange(ec.ECDH(), public)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
@pytest.mark.parametrize("times", [1, FOREVER], ids=["once", "always"])
async def test_fault(  # noqa: PLR0917 - two fixtures of a kind, three axes of the matrix
    hsm: SoftHsm,
    faulty_module: Path,
    tmp_path: Path,
    function: str,
    fault: tuple[Action, int],
    times: int,
) -> None:
    faulty = Faulty.create(faulty_module, tmp_path / "faults", MODULE, hsm.env)
    tokens = Tokens(
        clock=FakeClock(),
        state_dir=tmp_path / "state",
        limits=lambda _: Limits(900, 28800),
        on_change=lambda: None,
        deadlines=DEADLINES,
    )
    person = Person(faulty, tokens)
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
        with suppress(TokenError):
            await person.use_everything()
        faulty.strike(function, *fault, times=times)
        for _ in range(2):
            async with asyncio.timeout(ROUND_SECONDS):
                with suppress(TokenError):
                    await person.use_everything()
            tokens.statuses()
            tokens.modules()
        faulty.heal()
        await _recovers(person)
        # A PIN that was typed and never reached the token is fine; the other way round is not.
        assert faulty.calls("C_Login") <= person.typed
    finally:
        faulty.heal()
        async with asyncio.timeout(ROUND_SECONDS):
            await tokens.close()


async def _recovers(person: Person) -> None:
    """See that it does; a module that kept crashing is restarted slowly, the others at once."""
    async with asyncio.timeout(60):
        while True:
            try:
                await person.use_everything()
            except TokenError:
                await asyncio.sleep(0.2)
            else:
                kinds = {signer.key.key_type for signer in person.tokens.signers()}
                assert kinds == {KeyType.EC, KeyType.RSA}
                return
