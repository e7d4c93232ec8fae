"""The two raw operations with SoftHSM; signatures are in test_tokens."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.errors import LoginNeeded, TokenError
from hsmagent.token.signer import TokenSigner
from hsmagent.token.tokens import Tokens
from tests.parts.altered import altered
from tests.parts.token.softhsm import PIN


async def ready(tokens: Tokens, label: str) -> TokenSigner:
    signer = next(signer for signer in tokens.signers() if signer.key.label == label)
    await signer.token.login(bytearray(PIN.encode()))
    return signer


@pytest.mark.parametrize("zeros", [1, 9])
async def test_raw_rsa(tokens: Tokens, zeros: int) -> None:
    signer = await ready(tokens, "rsa")
    public = load_der_public_key(signer.key.spki)
    assert isinstance(public, rsa.RSAPublicKey)
    block = bytes(zeros) + b"\2" + os.urandom(255 - zeros)
    numbers = public.public_numbers()
    ciphertext = pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    assert await signer.decrypt_raw(ciphertext) == block
    with pytest.raises(TokenError, match="not encrypted for this key"):
        await signer.decrypt_raw(ciphertext[1:])
    with pytest.raises(TokenError):
        await signer.decrypt_raw(b"\xff" * 256)  # not smaller than the modulus
    assert await signer.decrypt_raw(ciphertext) == block
    await signer.token.logout()
    with pytest.raises(LoginNeeded):
        await signer.decrypt_raw(ciphertext)


@pytest.mark.parametrize("label", ["p256", "p384", "p521", "brainpool"])
@pytest.mark.parametrize("cofactor", [False, True])
async def test_ecdh(tokens: Tokens, label: str, cofactor: bool) -> None:
    signer = await ready(tokens, label)
    public = load_der_public_key(signer.key.spki)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for _ in range(3):
        other = ec.generate_private_key(public.curve)
        point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        shared = await signer.derive(point, cofactor=cofactor)
        assert shared == other.exchange(ec.ECDH(), public)
    with pytest.raises(TokenError, match="not encrypted for this key"):
        await signer.derive(point[:-1], cofactor=cofactor)
    with pytest.raises(TokenError):
        await signer.derive(altered(point), cofactor=cofactor)


async def test_the_wrong_kind_of_key(tokens: Tokens) -> None:
    with pytest.raises(TokenError, match="not encrypted for this key"):
        await (await ready(tokens, "p256")).decrypt_raw(bytes(32))
    with pytest.raises(TokenError, match="not encrypted for this key"):
        await (await ready(tokens, "rsa")).derive(bytes(65), cofactor=False)
