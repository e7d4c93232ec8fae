"""The card in our own workers. The card's counters judge: no try that nobody typed."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.errors import LoginNeeded, PinIncorrect, PinLocked, TokenError, TokenGone
from hsmagent.model import KeyType, PinState, Scheme
from hsmagent.schsm.apdu import INS, SW
from hsmagent.token.token import Token
from hsmagent.token.tokens import Tokens
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.card.furnished import P256, RSA
from tests.parts.token.loaded import loaded, signer_of, token_of, typed
from tests.parts.token.pkcs11_tool import pkcs11_tool, reset_card
from tests.parts.until import async_until

WRONG = "000000"
MESSAGE = b"to be signed"


@pytest.fixture
def token(tokens: Tokens) -> Token:
    return token_of(tokens)


def presented(reader: Reader) -> int:
    """How often somebody gave the card a PIN."""
    assert reader.card.user is not None
    return reader.card.user.presented


async def sign(tokens: Tokens, label: str = "ssh") -> bytes:
    return await signer_of(tokens, label).sign(Scheme.ECDSA_SHA256, MESSAGE)


async def test_every_key_is_listed_without_a_pin(reader: Reader, tokens: Tokens) -> None:
    keys = {signer.key.label: signer.key for signer in tokens.signers()}
    assert (keys["ssh"].curve, keys["ssh"].id) == ("secp256r1", b"\x01")
    assert keys["mail"].bits == 2048
    assert keys["mail"].certificates
    assert keys["old"].curve == "brainpoolP256r1"
    assert "authority" not in keys  # the issuer of the others; nobody has its key here
    assert presented(reader) == 0


async def test_every_key_signs_every_scheme(tokens: Tokens, token: Token) -> None:
    await token.login(typed(DEFAULT_PIN))
    for signer in tokens.signers():
        kind = "rsa" if signer.key.key_type is KeyType.RSA else "ecdsa"
        for scheme in Scheme:
            if signer.key.can_sign and scheme.startswith(kind):
                await signer.sign(scheme, MESSAGE)  # checked against the public key inside


async def test_decrypts_and_agrees(reader: Reader, tokens: Tokens) -> None:
    await token_of(tokens).login(typed(DEFAULT_PIN))
    public = reader.card.keys[RSA].public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = public.public_numbers()
    block = b"\0\2" + b"x" * (public.key_size // 8 - 2)
    ciphertext = pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(len(block), "big")
    assert await signer_of(tokens, "mail").decrypt_raw(ciphertext) == block
    ours = reader.card.keys[P256].public_key()
    assert isinstance(ours, ec.EllipticCurvePublicKey)
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    secret = await signer_of(tokens, "ssh").derive(point, cofactor=False)
    assert secret == peer.exchange(ec.ECDH(), ours)


async def test_wrong_pins_count_down_to_locked(reader: Reader, token: Token) -> None:
    for tries, state in ((1, PinState.COUNT_LOW), (2, PinState.FINAL_TRY), (3, PinState.LOCKED)):
        with pytest.raises(PinLocked if state is PinState.LOCKED else PinIncorrect):
            await token.login(typed(WRONG), at_worst=PinState.FINAL_TRY)
        assert presented(reader) == tries
        assert token.status().pin_state is state
    with pytest.raises(PinLocked, match="PUK"):
        await token.login(typed(DEFAULT_PIN))
    assert presented(reader) == 3


async def test_the_right_pin_after_the_final_try(reader: Reader, token: Token) -> None:
    for _ in range(2):
        with pytest.raises(PinIncorrect):
            await token.login(typed(WRONG))
    await token.login(typed(DEFAULT_PIN), at_worst=PinState.FINAL_TRY)
    assert token.status().pin_state is PinState.OK
    assert presented(reader) == 3


async def test_many_signatures_cost_one_pin(reader: Reader, tokens: Tokens) -> None:
    await token_of(tokens).login(typed(DEFAULT_PIN))
    await asyncio.gather(*(sign(tokens) for _ in range(20)))
    assert presented(reader) == 1


async def test_unplugged_while_logged_in(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    signer = signer_of(tokens, "ssh")
    await token.login(typed(DEFAULT_PIN))
    reader.unplug()
    with pytest.raises(TokenError):
        await signer.sign(Scheme.ECDSA_SHA256, MESSAGE)
    assert not token.logged_in
    reader.plug()
    await tokens.refresh()
    assert token.status().present
    with pytest.raises(LoginNeeded):
        await sign(tokens)
    assert presented(reader) == 1
    await token.login(typed(DEFAULT_PIN))
    await sign(tokens)


async def test_unplugged_in_the_middle_of_a_signature(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reader.card.knobs.unplug_at[INS.SIGN] = 2
    await sign(tokens)
    with pytest.raises(TokenError):
        await sign(tokens)
    reader.plug()
    await tokens.refresh()
    with pytest.raises(LoginNeeded):
        await sign(tokens)
    assert presented(reader) == 1


async def test_unplugged_in_the_middle_of_a_login(reader: Reader, token: Token) -> None:
    reader.card.knobs.unplug_at[INS.VERIFY] = 3
    with pytest.raises(TokenError):
        await token.login(typed(DEFAULT_PIN))
    assert not token.logged_in
    assert presented(reader) <= 1


async def test_another_card_does_not_get_the_pin(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    reader.unplug()
    reader.card.serial = "changed"
    reader.card.files.content.clear()
    reader.plug()
    with pytest.raises(TokenGone):
        await token.login(typed(DEFAULT_PIN))
    assert presented(reader) == 0


async def test_a_card_that_fails_without_a_reason(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reader.card.knobs.override[INS.SIGN] = (SW.INTERNAL, 99)
    with pytest.raises(LoginNeeded, match="work"):
        await sign(tokens)
    assert not token.logged_in
    del reader.card.knobs.override[INS.SIGN]
    await token.login(typed(DEFAULT_PIN))
    await sign(tokens)
    assert presented(reader) == 2


async def test_a_pin_locked_by_another_program(reader: Reader, token: Token) -> None:
    assert reader.card.user is not None
    reader.card.user.left = 0
    with pytest.raises(PinLocked):
        await token.login(typed(DEFAULT_PIN))
    assert presented(reader) == 0


async def test_logging_out_logs_the_card_out(reader: Reader, token: Token) -> None:
    """For every program: newer OpenSC's C_Logout does not reach the card, the worker's end does."""
    await token.login(typed(DEFAULT_PIN))
    assert reader.card.logged_in
    await token.logout()
    await async_until(lambda: not reader.card.logged_in)


async def test_an_idle_card_is_released_for_others(reader: Reader, tmp_path: Path) -> None:
    async with loaded(reader.provider, tmp_path, release=0.5) as tokens:
        await token_of(tokens).login(typed(DEFAULT_PIN))
        await sign(tokens)
        await async_until(lambda: not reader.card.logged_in)
        assert not token_of(tokens).logged_in


async def test_the_pin_is_changed_by_another_program(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    change = ["--change-pin", "--new-pin", "123456"]
    pkcs11_tool(reader.provider, *change, pin=DEFAULT_PIN)
    pkcs11_tool(reader.provider, "--list-objects")  # which ends the login
    for _ in range(3):
        with pytest.raises(LoginNeeded):
            await sign(tokens)
    assert reader.card.user is not None
    # OpenSC kept the PIN that was typed, and tries it once by itself (docs/reliability.md).
    assert reader.card.user.wrong <= 1
    await token.login(typed("123456"))
    await sign(tokens)


async def test_another_program_uses_the_card(reader: Reader, tokens: Tokens) -> None:
    await token_of(tokens).login(typed(DEFAULT_PIN))
    pkcs11_tool(reader.provider, "--list-objects", pin=DEFAULT_PIN)
    try:
        await sign(tokens)
    except LoginNeeded:  # we noticed before OpenSC logged in again by itself
        await token_of(tokens).login(typed(DEFAULT_PIN))
        await sign(tokens)
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


async def test_another_program_resets_the_card(
    reader: Reader, tokens: Tokens, tmp_path: Path
) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reset_card(reader.provider, tmp_path)
    before = presented(reader)
    with pytest.raises(TokenError):
        await sign(tokens)
    assert presented(reader) == before
    await token.login(typed(DEFAULT_PIN))
    await sign(tokens)
    assert presented(reader) == before + 1


async def test_pcscd_is_restarted(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reader.restart_pcscd()
    with pytest.raises(TokenError):
        await sign(tokens)
    assert not token.logged_in
    assert presented(reader) == 1


async def test_the_pin_pad(reader: Reader, tokens: Tokens) -> None:
    reader.card.pad = []
    reader.unplug()
    reader.plug()
    await tokens.refresh()
    token = token_of(tokens)
    assert token.status().pin_pad
    reader.card.pad.append(WRONG)
    with pytest.raises(PinIncorrect):
        await token.login(None)
    reader.card.pad.append(DEFAULT_PIN)
    await token.login(None)
    await sign(tokens)
    assert presented(reader) == 2


async def test_the_reader_of_a_card_is_known(tokens: Tokens, token: Token) -> None:
    """It tells tokens apart whose serials and models are equal."""
    [module] = tokens._modules.values()
    assert module.readers[token.id].startswith("Virtual PCD")
