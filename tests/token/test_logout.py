"""A worker for hardware ends with its last login, so that the card forgets it."""

import asyncio

import pytest

from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token.tokens import Tokens
from hsmagent.worker import spec
from tests.parts.token.faulty import Faulty
from tests.parts.token.loaded import token_of, typed
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import async_until
from tests.token.conftest import NewTokens


async def load(faulty: Faulty, new_tokens: NewTokens, *, hardware: bool) -> Tokens:
    faulty.set(slot_flags=spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT if hardware else 0)
    tokens = new_tokens()
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    return tokens


def workers(tokens: Tokens) -> tuple[int, ...]:
    return tokens.modules()[0].pids


async def starts_anew(tokens: Tokens) -> None:
    await async_until(lambda: tokens.modules()[0].state == "running")


async def begun(faulty: Faulty, logins: int) -> None:
    """Return while the module is in its C_Login, before our loop can learn how it ended."""
    async with asyncio.timeout(20):
        while faulty.calls("C_Login") < logins:
            await asyncio.sleep(0)


async def signs(tokens: Tokens) -> None:
    (signer,) = tokens.signers()
    await signer.sign(Scheme.ECDSA_SHA256, b"data")


@pytest.mark.parametrize("hardware", [True, False])
async def test_a_worker_for_hardware_ends_with_its_login(
    faulty: Faulty, new_tokens: NewTokens, hardware: bool
) -> None:
    tokens = await load(faulty, new_tokens, hardware=hardware)
    token, before = token_of(tokens), workers(tokens)
    await token.login(typed(PIN))
    await token.logout()
    await starts_anew(tokens)
    assert (workers(tokens) != before) is hardware
    assert faulty.calls("C_Logout") == 1
    assert tokens.modules()[0].last_error == ""
    assert token.status().last_error == ""
    assert token.present
    assert len(tokens.signers()) == 1
    await token.login(typed(PIN))
    await signs(tokens)


async def test_a_slot_that_fails_for_a_moment_leaves_no_login_behind(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await load(faulty, new_tokens, hardware=True)
    token, before = token_of(tokens), workers(tokens)
    await token.login(typed(PIN))
    faulty.set(failing_slot=(int(token.id.serial[-8:], 16) & 0x7FFFFFFF) + 1)
    await async_until(lambda: not token.present)
    faulty.set(failing_slot=0)
    await async_until(lambda: token.present)
    assert not token.logged_in
    assert faulty.calls("C_Logout") == 1
    assert workers(tokens) != before
    await token.login(typed(PIN))
    await signs(tokens)


async def test_a_login_right_behind_a_logout_waits_for_the_new_worker(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await load(faulty, new_tokens, hardware=True)
    token = token_of(tokens)
    await token.login(typed(PIN))
    await asyncio.gather(token.logout(), token.login(typed(PIN)))
    await signs(tokens)
    assert faulty.calls("C_Login") == 2


async def test_the_last_login_of_a_worker_counts(
    own_hsm: SoftHsm, faulty: Faulty, new_tokens: NewTokens
) -> None:
    own_hsm.init_token("other")
    tokens = await load(faulty, new_tokens, hardware=True)
    one, other = (tokens.token(status.id) for status in tokens.statuses())
    before = workers(tokens)
    await one.login(typed(PIN))
    await other.login(typed(PIN))
    await one.logout()
    assert workers(tokens) == before
    assert other.logged_in
    # A login that is under way when the last other one ends is not lost.
    again = asyncio.ensure_future(one.login(typed(PIN)))
    await begun(faulty, 3)
    await other.logout()
    await again
    assert one.logged_in
    await one.logout()
    await starts_anew(tokens)
    assert workers(tokens) != before
