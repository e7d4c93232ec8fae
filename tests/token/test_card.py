"""A SmartCard-HSM behind the real pcscd and OpenSC, as the daemon sees it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import LoginNeeded, PinIncorrect, PinLocked, TokenError, TokenGone
from hsmagent.model import KeyType, PinState, Scheme
from hsmagent.token.tokens import ModuleSpec, Tokens, TokenSession, TokenSigner
from tests.parts.card import DEFAULT_PIN, Reader, furnished, inserted
from tests.parts.card.apdu import INS
from tests.token.conftest import NewTokens

SCHEMES = {KeyType.RSA: Scheme.RSA_PKCS1_SHA256, KeyType.EC: Scheme.ECDSA_SHA256}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    # OpenSC keeps a cache of a card's files; not the user's.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with inserted(furnished()) as reader:
        yield reader


def pin(text: str = DEFAULT_PIN) -> bytearray:
    return bytearray(text.encode())


def session_of(tokens: Tokens) -> TokenSession:
    return tokens.session(tokens.statuses()[0].id)


def signer_of(tokens: Tokens, key_type: KeyType) -> TokenSigner:
    return next(signer for signer in tokens.signers() if signer.key.key_type is key_type)


async def until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Wait until condition() is true; return how long that took."""
    before = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - before


async def loaded(reader: Reader, new_tokens: NewTokens) -> Tokens:
    tokens = new_tokens()
    provider = reader.provider
    await tokens.add(ModuleSpec(provider.module, env=tuple(provider.environment.items())))
    return tokens


def verifies(reader: Reader) -> int:
    """Return how often the card was given a PIN."""
    return sum(
        exchange.ins == INS.VERIFY and exchange.length > 0 for exchange in reader.card.knobs.log
    )


async def test_lists_and_signs(reader: Reader, new_tokens: NewTokens) -> None:
    tokens = await loaded(reader, new_tokens)
    (status,) = tokens.statuses()
    assert status.pin_state is PinState.OK
    before = [signer.key.label for signer in tokens.signers()]
    await session_of(tokens).login(pin())
    assert verifies(reader) == 1
    assert {signer.key.label for signer in tokens.signers()} <= set(before)
    for signer in tokens.signers():
        await signer.sign(SCHEMES[signer.key.key_type], b"data")
    assert verifies(reader) == 1


async def test_wrong_pins_down_to_blocked(reader: Reader, new_tokens: NewTokens) -> None:
    tokens = await loaded(reader, new_tokens)
    session = session_of(tokens)
    for count, (state, error) in enumerate(
        (
            (PinState.COUNT_LOW, PinIncorrect),
            (PinState.FINAL_TRY, PinIncorrect),
            (PinState.LOCKED, PinLocked),
        ),
        1,
    ):
        with pytest.raises(error):
            await session.login(pin("000000"))
        assert session.status().pin_state is state
        assert verifies(reader) == count
    with pytest.raises(PinLocked):
        await session.login(pin())
    assert verifies(reader) == 3


async def test_pulled_out_and_put_back(reader: Reader, new_tokens: NewTokens) -> None:
    tokens = await loaded(reader, new_tokens)
    signer = signer_of(tokens, KeyType.EC)
    await signer.session.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    reader.unplug()
    assert await until(lambda: not tokens.signers()) < 4
    assert not signer.session.logged_in
    with pytest.raises((LoginNeeded, TokenGone)):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    reader.plug()
    assert await until(tokens.signers) < 6
    assert not signer.session.logged_in
    await signer.session.login(pin())
    await signer_of(tokens, KeyType.EC).sign(Scheme.ECDSA_SHA256, b"data")
    assert verifies(reader) == 2


async def test_pulled_out_in_the_middle_of_a_signature(
    reader: Reader, new_tokens: NewTokens
) -> None:
    tokens = await loaded(reader, new_tokens)
    signer = signer_of(tokens, KeyType.EC)
    await signer.session.login(pin())
    reader.card.knobs.unplug_at[INS.SIGN] = 1
    with pytest.raises(TokenError):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await until(lambda: not signer.session.logged_in)
    assert verifies(reader) == 1


async def test_pcscd_is_started_anew(reader: Reader, new_tokens: NewTokens) -> None:
    tokens = await loaded(reader, new_tokens)
    signer = signer_of(tokens, KeyType.EC)
    await signer.session.login(pin())
    await asyncio.to_thread(reader.restart_pcscd)
    await until(lambda: not signer.session.logged_in)
    await until(lambda: bool(tokens.signers()) and tokens.modules()[0].state == "running")
    await signer.session.login(pin())
    await signer_of(tokens, KeyType.EC).sign(Scheme.ECDSA_SHA256, b"data")
    assert verifies(reader) == 2


async def test_pcscd_comes_later(reader: Reader, new_tokens: NewTokens) -> None:
    reader.pcscd.stop()
    reader.unplug()
    tokens = await loaded(reader, new_tokens)
    assert tokens.signers() == ()
    reader.pcscd.start()
    await asyncio.to_thread(reader.plug)
    await until(tokens.signers)


async def test_decrypts(reader: Reader, new_tokens: NewTokens) -> None:
    tokens = await loaded(reader, new_tokens)
    signer = signer_of(tokens, KeyType.RSA)
    await signer.session.login(pin())
    public = load_der_public_key(signer.key.spki)
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = public.public_numbers()
    block = b"\0\2" + b"x" * (public.key_size // 8 - 2)
    ciphertext = pow(int.from_bytes(block, "big"), numbers.e, numbers.n)
    plain = await signer.decrypt_raw(ciphertext.to_bytes(len(block), "big"))
    assert plain == block
