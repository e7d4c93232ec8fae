"""The card comes and goes, and so does pcscd: seen within two seconds, and asked again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hsmagent.errors import LoginNeeded, PinError, TokenError, TokenGone
from hsmagent.model import Scheme
from hsmagent.token.hotplug import INTERVAL
from hsmagent.token.tokens import Tokens
from tests.parts.token.card import DEFAULT_PIN, Reader, furnished
from tests.parts.token.loaded import loaded, signer_of, token_of, typed

SECONDS = 2.0
SLACK = 4.0  # a busy machine


@pytest.fixture
async def tokens(reader: Reader, tmp_path: Path) -> AsyncIterator[Tokens]:
    async with loaded(reader.provider, tmp_path) as tokens:
        yield tokens


async def seen(condition: Callable[[], object]) -> float:
    """Wait until the daemon's side shows it by itself; returns the seconds that took."""
    start = time.monotonic()
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)
    return time.monotonic() - start


async def sign(tokens: Tokens) -> bytes:
    return await signer_of(tokens, "ssh").sign(Scheme.ECDSA_SHA256, b"to be signed")


async def test_a_card_disappears_and_appears(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reader.unplug()
    assert await seen(lambda: not tokens.signers()) < SECONDS + SLACK
    await seen(lambda: not token.status().present)
    assert not token.logged_in
    await asyncio.to_thread(reader.plug)
    assert await seen(tokens.signers) < SECONDS + SLACK
    with pytest.raises(LoginNeeded):
        await sign(tokens)
    await token.login(typed(DEFAULT_PIN))
    await sign(tokens)
    assert reader.card.user is not None
    assert reader.card.user.presented == 2


async def test_a_card_appears_that_was_not_there_at_the_start(
    reader: Reader, tmp_path: Path
) -> None:
    reader.unplug()
    async with loaded(reader.provider, tmp_path) as tokens:
        assert not tokens.signers()
        await asyncio.to_thread(reader.plug)
        await seen(tokens.signers)
        await token_of(tokens).login(typed(DEFAULT_PIN))
        await sign(tokens)


async def test_another_card_in_the_same_reader(reader: Reader, tokens: Tokens) -> None:
    first = token_of(tokens)
    await first.login(typed(DEFAULT_PIN))
    other = furnished("DENK0200002", "other")
    await asyncio.to_thread(reader.plug, other)
    await seen(lambda: any(s.id.serial == "DENK0200002" for s in tokens.statuses()))
    assert not first.status().present
    assert not first.logged_in
    with pytest.raises(TokenGone):
        await first.login(typed(DEFAULT_PIN))
    assert other.user is not None
    assert other.user.presented == 0


async def test_looking_wakes_no_card(reader: Reader, tokens: Tokens) -> None:
    log = reader.card.knobs.log

    async def rests() -> bool:
        before = len(log)
        await asyncio.sleep(2.5)
        return len(log) == before

    for _ in range(5):
        if await rests():  # OpenSC reports the card once as new
            break
    assert await rests()
    assert tokens.signers()


async def test_nobody_looks_at_a_card_that_nobody_uses(reader: Reader, tokens: Tokens) -> None:
    [module] = tokens._modules.values()
    readers = module.watch._readers
    async with asyncio.timeout(30):
        lasts = False
        while not lasts:  # what was done with the card shows for a while
            change = readers._change
            await asyncio.sleep(2 * INTERVAL)
            lasts = change is not None and change is readers._change and not change.done()
    assert module.pool.at_rest
    reader.unplug()
    assert await seen(lambda: not tokens.signers()) < SECONDS + SLACK


async def test_pcscd_is_restarted(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    await asyncio.to_thread(reader.restart_pcscd)
    await seen(lambda: not token.logged_in)
    await seen(lambda: tokens.modules()[0].state == "running" and tokens.signers())
    await token.login(typed(DEFAULT_PIN))
    await sign(tokens)
    assert reader.card.user is not None
    assert reader.card.user.presented == 2


async def test_pcscd_is_restarted_by_systemd_while_we_sign(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    await asyncio.to_thread(lambda: reader.restart_pcscd(keep_socket=True))
    # OpenSC is lost if it is asked for a signature before it is asked for its slots.
    async with asyncio.timeout(30):
        while True:
            try:
                await sign(tokens)
                break
            except LoginNeeded:
                with contextlib.suppress(PinError):
                    await token.login(typed(DEFAULT_PIN))
            except TokenError:
                await asyncio.sleep(0.2)
    assert reader.card.user is not None
    assert reader.card.user.presented == 2


async def test_pcscd_is_started_after_us(reader: Reader, tmp_path: Path) -> None:
    reader.unplug()
    reader.pcscd.stop()
    async with loaded(reader.provider, tmp_path) as tokens:
        assert not tokens.signers()
        reader.pcscd.start()
        await asyncio.to_thread(reader.plug)
        await seen(tokens.signers)
        await token_of(tokens).login(typed(DEFAULT_PIN))
        await sign(tokens)


async def test_pcscd_ends(reader: Reader, tokens: Tokens) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    reader.unplug()
    reader.pcscd.stop()
    with pytest.raises(TokenError):
        await sign(tokens)
    await seen(lambda: not tokens.signers())
    assert not token.logged_in
