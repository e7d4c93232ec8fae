"""A card that nobody is logged in to is held by no process of ours, and still watched."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from hsmagent.schsm.apdu import INS
from hsmagent.token.hotplug import INTERVAL
from hsmagent.token.readers import CONTENTS_POLLS
from hsmagent.token.tokens import Tokens
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.loaded import at_rest, labels, token_of, typed
from tests.parts.token.pkcs11_tool import pkcs11_tool
from tests.parts.until import async_until

SCDAEMON = next(
    (
        path
        for path in map(Path, ("/usr/lib/gnupg/scdaemon", "/usr/libexec/scdaemon"))
        if path.exists()
    ),
    None,
)
EXCLUSIVE = """
import sys
from hsmagent.worker import pcsc
pcsc._SCARD_SHARE_SHARED = 1  # SCARD_SHARE_EXCLUSIVE
with pcsc.Pcsc() as service:
    with service.connect(service.reader_names()[0]):
        print("held", flush=True)
        sys.stdin.read()
"""


async def test_others_get_the_card_to_themselves_and_we_get_it_back(
    reader: Reader, tokens: Tokens
) -> None:
    """As scdaemon and sc-hsm-tool want it."""
    token = token_of(tokens)
    for _ in range(2):
        await token.login(typed(DEFAULT_PIN))
        await token.logout()
        await at_rest(tokens)
        assert not tokens.modules()[0].pids
        assert labels(tokens) >= {"ssh", "mail"}
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", EXCLUSIVE),
            env=os.environ | dict(reader.provider.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert other.stdout is not None
        assert await other.stdout.readline() == b"held\n"
        await other.communicate(b"")
    assert reader.card.user is not None
    assert reader.card.user.presented == 2


@pytest.mark.skipif(SCDAEMON is None, reason="needs scdaemon")
async def test_beside_a_real_scdaemon_both_work_in_turn(
    reader: Reader, tokens: Tokens, tmp_path: Path
) -> None:
    token = token_of(tokens)
    (tmp_path / "scdaemon.conf").write_text("disable-ccid\n")
    for _ in range(2):
        await token.login(typed(DEFAULT_PIN))
        await token.logout()
        await at_rest(tokens)
        scdaemon = await asyncio.create_subprocess_exec(
            *(str(SCDAEMON), "--homedir", str(tmp_path), "--server"),
            env=os.environ | dict(reader.provider.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await scdaemon.communicate(b"SERIALNO\nBYE\n")
        assert b"\nS SERIALNO " in said, said
    await token.login(typed(DEFAULT_PIN))


async def test_a_card_at_rest_stays_at_rest(tokens: Tokens, reader: Reader) -> None:
    await at_rest(tokens)
    start, before = time.monotonic(), len(reader.card.knobs.log)
    await asyncio.sleep(8)
    assert tokens.modules()[0].state == "at rest"
    # It is asked for its list now and then, and not held for that.
    asked = reader.card.knobs.log[before:]
    assert {exchange.ins for exchange in asked} <= {
        *(INS.ENUMERATE_OBJECTS, INS.VERIFY, INS.READ_BINARY, INS.SELECT)
    }
    lists = [exchange for exchange in asked if exchange.ins == INS.ENUMERATE_OBJECTS]
    assert len(lists) <= 2 * (1 + (time.monotonic() - start) / (INTERVAL * CONTENTS_POLLS))


async def test_pulled_out_and_put_back_at_rest(reader: Reader, tokens: Tokens) -> None:
    await at_rest(tokens)
    reader.unplug()
    await async_until(lambda: not tokens.signers())
    await at_rest(tokens)
    await asyncio.to_thread(reader.plug)
    await async_until(lambda: bool(tokens.signers()))
    await token_of(tokens).login(typed(DEFAULT_PIN))


async def test_a_key_made_by_another_program_shows_at_the_next_use(
    reader: Reader, tokens: Tokens
) -> None:
    await at_rest(tokens)
    arguments = ["--keypairgen", "--key-type", "EC:prime256v1", "--id", "55", "--label", "new"]
    await asyncio.to_thread(pkcs11_tool, reader.provider, *arguments, pin=DEFAULT_PIN)
    await token_of(tokens).login(typed(DEFAULT_PIN))
    assert "new" in labels(tokens)
