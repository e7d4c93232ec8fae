"""A TPM and NSS's database in our own workers."""

from pathlib import Path

import pytest

from hsmagent.errors import PinIncorrect, PinLocked
from hsmagent.model import Scheme
from tests.parts.token import nss, swtpm
from tests.parts.token.loaded import loaded, signer_of, token_of, typed
from tests.parts.token.provider import Provider

MESSAGE = b"to be signed"


async def test_tpm_keys_sign(tpm: Provider, tmp_path: Path) -> None:
    async with loaded(tpm, tmp_path) as tokens:
        assert token_of(tokens).id.label == swtpm.TOKEN
        await token_of(tokens).login(typed(tpm.pin))
        await signer_of(tokens, "ssh").sign(Scheme.ECDSA_SHA256, MESSAGE)
        await signer_of(tokens, "mail").sign(Scheme.RSA_PKCS1_SHA256, MESSAGE)
        await signer_of(tokens, "mail").sign(Scheme.RSA_PKCS1_SHA512, MESSAGE)


async def test_wrong_pins_lock_a_tpm(tmp_path: Path) -> None:
    with swtpm.tpm() as provider:
        async with loaded(provider, tmp_path) as tokens:
            token = token_of(tokens)
            for _ in range(3):
                with pytest.raises(PinIncorrect):
                    await token.login(typed("wrong"))
            with pytest.raises(PinLocked, match="wait until it does again, or run `tpm2_dict"):
                await token.login(typed(provider.pin))


async def test_database_keys_sign(database: Provider, tmp_path: Path) -> None:
    async with loaded(database, tmp_path) as tokens:
        status = next(s for s in tokens.statuses() if s.id.label == nss.TOKEN)
        token = tokens.token(status.id)
        await token.login(typed(database.pin))
        await signer_of(tokens, "ssh").sign(Scheme.ECDSA_SHA256, MESSAGE)
        await signer_of(tokens, "mail").sign(Scheme.RSA_PKCS1_SHA256, MESSAGE)


async def test_a_wrong_pin_for_the_database(database: Provider, tmp_path: Path) -> None:
    async with loaded(database, tmp_path) as tokens:
        status = next(s for s in tokens.statuses() if s.id.label == nss.TOKEN)
        with pytest.raises(PinIncorrect):
            await tokens.token(status.id).login(typed("wrong"))


@pytest.mark.parametrize("kind", ["tpm", "database"])
async def test_our_own_logins_are_no_change(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    provider = request.getfixturevalue(kind)
    async with loaded(provider, tmp_path) as tokens:
        await tokens.freshen()  # making the fixture's keys may have been a moment ago
        pids = tokens.modules()[0].pids
        signer = signer_of(tokens, "ssh")
        await signer.token.login(typed(provider.pin))
        await signer.sign(Scheme.ECDSA_SHA256, MESSAGE)
        assert not tokens.outdated()
        await tokens.freshen()
        assert tokens.modules()[0].pids == pids
        await signer.token.logout()


async def test_a_key_made_in_the_database_shows_when_somebody_asks(tmp_path: Path) -> None:
    with nss.database() as provider:
        async with loaded(provider, tmp_path) as tokens:
            nss.add_key(provider, "new")
            assert tokens.outdated()
            await tokens.freshen()
            assert "new" in {signer.key.label for signer in tokens.signers()}
