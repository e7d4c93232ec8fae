"""A TPM behind tpm2-pkcs11, and NSS's softokn with its parameters."""

import pytest

from hsmagent.errors import PinIncorrect, TokenError
from hsmagent.model import KeyType, Scheme
from hsmagent.token.tokens import ModuleSpec, Tokens
from tests.parts import nss, swtpm
from tests.parts.provider import Provider
from tests.token.conftest import NewTokens

SCHEMES = {KeyType.RSA: Scheme.RSA_PKCS1_SHA256, KeyType.EC: Scheme.ECDSA_SHA256}


def spec_of(provider: Provider) -> ModuleSpec:
    env = tuple(provider.environment.items())
    return ModuleSpec(provider.module, env=env, parameters=provider.parameters)


async def sign_with_all(tokens: Tokens, pin: str) -> None:
    (status,) = [status for status in tokens.statuses() if status.keys]
    session = tokens.session(status.id)
    with pytest.raises(PinIncorrect):
        await session.login(bytearray(b"00000000"))
    await session.login(bytearray(pin.encode()))
    assert session.logged_in
    signers = [signer for signer in tokens.signers() if signer.session is session]
    assert {signer.key.key_type for signer in signers} == {KeyType.RSA, KeyType.EC}
    for signer in signers:
        # One login for each: a TPM without a resource manager has no room for two keys.
        await session.login(bytearray(pin.encode()))
        await signer.sign(SCHEMES[signer.key.key_type], b"data")
        await session.logout()
    with pytest.raises(TokenError):
        await signers[0].sign(SCHEMES[signers[0].key.key_type], b"data")


async def test_tpm(new_tokens: NewTokens) -> None:
    with swtpm.tpm() as provider:
        tokens = new_tokens()
        await tokens.add(spec_of(provider))
        await sign_with_all(tokens, provider.pin)
        await tokens.close()


async def test_nss(new_tokens: NewTokens) -> None:
    with nss.database() as provider:
        tokens = new_tokens()
        await tokens.add(spec_of(provider))
        await sign_with_all(tokens, provider.pin)
        await tokens.close()
