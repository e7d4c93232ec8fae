"""What other programs do to software tokens while we run: shown when somebody next asks."""

import asyncio
from pathlib import Path

import pytest

from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token import stores
from hsmagent.token.tokens import GLANCE, Tokens
from tests.parts.token.loaded import signer_of, token_of, typed
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import NewTokens


@pytest.fixture
async def own(own_hsm: SoftHsm, new_tokens: NewTokens) -> Tokens:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
    return tokens


def labels(tokens: Tokens) -> set[str]:
    return {signer.key.label for signer in tokens.signers()}


async def asked(tokens: Tokens) -> set[str]:
    """Do what the daemon does before it answers a question about keys."""
    await tokens.freshen()
    return labels(tokens)


async def test_a_key_that_is_made_and_one_that_is_deleted(own_hsm: SoftHsm, own: Tokens) -> None:
    own_hsm.generate("own", "EC:prime256v1", "02", "new")
    assert own.outdated()
    assert await asked(own) == {"p256", "new"}
    await asyncio.sleep(GLANCE)
    assert not own.outdated()
    for kind in ("privkey", "pubkey"):
        own_hsm.pkcs11_tool("own", "--delete-object", "--type", kind, "--id", "01")
    assert await asked(own) == {"new"}


async def test_it_shows_by_itself_too(own_hsm: SoftHsm, own: Tokens) -> None:
    own_hsm.generate("own", "EC:prime256v1", "02", "new")
    async with asyncio.timeout(20):
        while labels(own) != {"p256", "new"}:
            await asyncio.sleep(0.05)


async def test_a_key_that_is_made_while_we_are_logged_in(own_hsm: SoftHsm, own: Tokens) -> None:
    token = token_of(own)
    await token.login(typed(PIN))
    own_hsm.generate("own", "EC:prime256v1", "02", "new")
    assert await asked(own) == {"p256", "new"}
    assert token.logged_in
    assert await signer_of(own, "new").sign(Scheme.ECDSA_SHA256, b"data")


async def test_a_token_that_is_made(own_hsm: SoftHsm, own: Tokens) -> None:
    own_hsm.init_token("second")
    own_hsm.generate("second", "EC:prime256v1", "01", "other")
    assert await asked(own) == {"p256", "other"}


async def test_a_token_that_is_made_while_we_are_logged_in(own_hsm: SoftHsm, own: Tokens) -> None:
    token = token_of(own)
    await token.login(typed(PIN))
    own_hsm.init_token("second")
    own_hsm.generate("second", "EC:prime256v1", "01", "other")
    assert await asked(own) == {"p256"}
    assert "when nobody is logged in" in own.modules()[0].notes[-1]
    await token.logout()
    async with asyncio.timeout(20):
        while labels(own) != {"p256", "other"}:
            await asyncio.sleep(0.05)
    assert own.modules()[0].notes == ()


async def test_a_token_of_another_name(own_hsm: SoftHsm, own: Tokens) -> None:
    serial = token_of(own).id.serial
    own_hsm.run(
        *("softhsm2-util", "--init-token", "--serial", serial, "--label", "renamed"),
        *("--pin", PIN, "--so-pin", "13572468"),
    )
    assert await asked(own) == set()
    assert [status.id.label for status in own.statuses()] == ["renamed"]


async def test_a_token_that_is_deleted(own_hsm: SoftHsm, own: Tokens) -> None:
    own_hsm.delete()
    assert await asked(own) == set()
    assert own.statuses() == ()


async def test_what_we_do_ourselves_is_no_change(own: Tokens) -> None:
    pids = own.modules()[0].pids
    token = token_of(own)
    for _ in range(2):
        await token.login(typed(PIN))
        await signer_of(own, "p256").sign(Scheme.ECDSA_SHA256, b"data")
        await token.logout()
        assert not own.outdated()
        await asyncio.sleep(GLANCE)
    assert own.modules()[0].pids == pids


def test_where_a_module_keeps_its_objects(tmp_path: Path) -> None:
    store = tmp_path / ".tpm2_pkcs11"
    store.mkdir()
    (store / "tpm2_pkcs11.sqlite3").write_bytes(b"one")
    module = ModuleSpec("/usr/lib/x/libtpm2_pkcs11.so.1", env=(("HOME", str(tmp_path)),))
    ((path, _, size),) = stores.stamp(module)
    assert (path, size) == (str(store / "tpm2_pkcs11.sqlite3"), 3)
    assert stores.stamp(ModuleSpec("/usr/lib/x/opensc-pkcs11.so")) == ()
