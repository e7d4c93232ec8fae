"""The card comes and goes, and so does pcscd: seen within two seconds, and asked again."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hsmagent.errors import LoginNeeded, PinError, TokenError, TokenGone
from hsmagent.model import Scheme
from hsmagent.schsm.apdu import INS
from hsmagent.token.hotplug import INTERVAL
from hsmagent.token.tokens import Tokens
from tests.parts.token.card import DEFAULT_PIN, Reader, furnished
from tests.parts.token.loaded import loaded, signer_of, token_of, typed
from tests.parts.until import until

SECONDS = 2.0
SLACK = 4.0  # a busy machine


async def seen(condition: Callable[[], object]) -> float:
    """Wait until the daemon's side shows it by itself; returns the seconds that took."""
    start = time.monotonic()
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)
    return time.monotonic() - start


def is_alone(tokens: Tokens, serial: str) -> bool:
    return [status.id.serial for status in tokens.statuses() if status.present] == [serial]


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
    await seen(lambda: not first.status().present)
    assert not first.logged_in
    with pytest.raises(TokenGone):
        await first.login(typed(DEFAULT_PIN))
    assert other.user is not None
    assert other.user.presented == 0


async def test_pulled_out_in_a_signature_and_put_back_at_once(
    reader: Reader, tokens: Tokens
) -> None:
    """The same card, and then another one: while the module's worker is being replaced."""
    token = token_of(tokens)
    for card in (reader.card, furnished("DENK0200002", "other")):
        await token.login(typed(DEFAULT_PIN))
        reader.card.knobs.unplug_at[INS.SIGN] = 1
        signing = asyncio.create_task(sign(tokens))
        await asyncio.to_thread(lambda: until(lambda: not reader.pcscd.has_card))
        await asyncio.to_thread(reader.plug, card)
        with pytest.raises(TokenError):
            await signing
        assert not token.logged_in
        await seen(partial(is_alone, tokens, card.serial))
    assert not token.status().present
    assert card.user is not None
    assert card.user.presented == 0
    await tokens.signers()[0].token.login(typed(DEFAULT_PIN))
    await sign(tokens)


async def test_looking_disturbs_no_card(reader: Reader, tokens: Tokens) -> None:
    await token_of(tokens).login(typed(DEFAULT_PIN))
    log = reader.card.knobs.log

    async def rests() -> bool:
        before = len(log)
        await asyncio.sleep(2.5)
        # Now and then a SmartCard-HSM is asked for its list, which ends no login.
        return {exchange.ins for exchange in log[before:]} <= {INS.ENUMERATE_OBJECTS, INS.VERIFY}

    for _ in range(5):
        if await rests():  # OpenSC reports the card once as new
            break
    assert await rests()
    assert tokens.signers()


async def test_nobody_looks_at_a_reader_without_a_card(reader: Reader, tokens: Tokens) -> None:
    reader.unplug()
    await seen(lambda: not tokens.signers())
    [module] = tokens._modules.values()
    readers = module.watch._readers
    async with asyncio.timeout(30):
        lasts = False
        while not lasts:
            change = readers._change
            await asyncio.sleep(2 * INTERVAL)
            lasts = change is not None and change is readers._change and not change.done()
    assert module.pool.at_rest
    await asyncio.to_thread(reader.plug)
    assert await seen(lambda: bool(tokens.signers())) < SECONDS + SLACK


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
