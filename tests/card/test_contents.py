"""What other programs do to a SmartCard-HSM shows by itself, and no login ends for that."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from hsmagent.errors import TokenGone
from hsmagent.model import Scheme
from hsmagent.schsm.apdu import INS
from hsmagent.token.tokens import Tokens
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.loaded import at_rest, labels, signer_of, token_of, typed
from tests.parts.token.pkcs11_tool import pkcs11_tool
from tests.parts.until import async_until

# A program that speaks to the card itself, and does what it is told by the line.
RAW = """
import sys
from hsmagent.schsm.card import SmartCardHsm
from hsmagent.worker import pcsc
if "exclusive" in sys.argv:
    pcsc._SCARD_SHARE_SHARED = 1  # SCARD_SHARE_EXCLUSIVE
with pcsc.Pcsc() as service:
    reader = next(reader.name for reader in service.readers() if reader.has_card)
    with service.connect(reader) as card:
        hsm = SmartCardHsm(card.transmit)
        print("connected", flush=True)
        for line in sys.stdin:
            print(eval(line), flush=True)
"""
LOG_IN = f"hsm.select(), hsm.verify(bytearray(b'{DEFAULT_PIN}'))"
DELETE_OLD = "[hsm.delete(file << 8 | 3) for file in (0xCC, 0xC4, 0xCE)]"
LOGGED_IN = "hsm.pin_status(0x81).logged_in"


class Other:
    """The other program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hears(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def does(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.hears()


@asynccontextmanager
async def other(reader: Reader, *how: str) -> AsyncIterator[Other]:
    """Let another program be connected to the card."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RAW, *how),
        env=os.environ | dict(reader.provider.environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    program = Other(process)
    assert await program.hears() == "connected"
    try:
        yield program
    finally:
        await process.communicate(b"")


async def tool(reader: Reader, *arguments: str, pin: str | None = DEFAULT_PIN) -> None:
    await asyncio.to_thread(pkcs11_tool, reader.provider, *arguments, pin=pin)


async def test_a_key_that_is_made_and_one_that_is_deleted(reader: Reader, tokens: Tokens) -> None:
    await at_rest(tokens)
    made = ("--keypairgen", "--key-type", "EC:prime256v1", "--id", "55", "--label", "new")
    await tool(reader, *made)
    await async_until(lambda: "new" in labels(tokens))
    await at_rest(tokens)
    await tool(reader, "--delete-object", "--type", "privkey", "--id", "55")
    await async_until(lambda: "new" not in labels(tokens))
    assert reader.card.user is not None
    assert reader.card.user.presented == 2  # not by us


def _is_called(tokens: Tokens, label: str) -> bool:
    """Whether the only token has this label. Older OpenSC puts the PIN's behind it."""
    found = [status.id.label for status in tokens.statuses()]
    return found in ([label], [f"{label} (UserPIN)"])


async def test_a_card_that_is_initialised_anew(reader: Reader, tokens: Tokens) -> None:
    await at_rest(tokens)
    for label in ("first", "second"):  # the second time, there is nothing on it before
        await tool(reader, "--init-token", "--label", label, "--so-pin", DEFAULT_SO_PIN, pin=None)
        await async_until(partial(_is_called, tokens, label))
        assert not labels(tokens)
        await at_rest(tokens)


async def test_another_programs_login_is_not_ended_for_a_look(
    reader: Reader, tokens: Tokens
) -> None:
    await at_rest(tokens)
    log = reader.card.knobs.log
    async with other(reader) as program:
        await program.does(LOG_IN)
        await program.does(DELETE_OLD)
        before = len(log)
        await async_until(  # it is seen, and not acted upon
            lambda: sum(each.ins == INS.ENUMERATE_OBJECTS for each in log[before:]) > 1
        )
        assert await program.does(LOGGED_IN) == "True"
        assert INS.SELECT not in {each.ins for each in log[before:]}
        assert "old" in labels(tokens)
    await async_until(lambda: "old" not in labels(tokens))


async def test_our_own_login_stays_and_the_change_shows_after_it(
    reader: Reader, tokens: Tokens
) -> None:
    token = token_of(tokens)
    await token.login(typed(DEFAULT_PIN))
    await asyncio.sleep(0)
    log = reader.card.knobs.log
    await async_until(lambda: INS.ENUMERATE_OBJECTS in {each.ins for each in log[-2:]})
    async with other(reader) as program:
        assert await program.does(LOGGED_IN) == "True"  # a card's login is everybody's
        await program.does(DELETE_OLD)
        await async_until(lambda: tokens.modules()[0].notes)
    assert "when nobody is logged in" in tokens.modules()[0].notes[0]
    assert token.logged_in
    await signer_of(tokens, "ssh").sign(Scheme.ECDSA_SHA256, b"data")
    assert reader.card.user is not None
    assert reader.card.user.presented == 1
    await token.logout()
    await async_until(lambda: "old" not in labels(tokens))
    assert tokens.modules()[0].notes == ()


async def test_a_card_that_is_busy_keeps_nobody_waiting(reader: Reader, tokens: Tokens) -> None:
    """Making an RSA key takes a real one half a minute and more, and who connects waits for it."""
    await at_rest(tokens)
    reader.card.knobs.latency[INS.GENERATE_KEY_PAIR] = 12  # longer than a poll may take
    made = ("--keypairgen", "--key-type", "EC:prime256v1", "--id", "55", "--label", "new")
    await tool(reader, *made)
    await async_until(lambda: "new" in labels(tokens))
    assert "watched" not in " ".join(tokens.modules()[0].notes)


async def test_a_card_that_another_program_keeps_to_itself(reader: Reader, tokens: Tokens) -> None:
    """As GnuPG's scdaemon does. To the module its reader is empty."""
    await at_rest(tokens)
    signer = signer_of(tokens, "ssh")
    async with other(reader, "exclusive"):
        await async_until(lambda: tokens.modules()[0].notes)
        (note,) = tokens.modules()[0].notes
        assert note.startswith("the card in “Virtual PCD 00 00” is kept by another program")
        with pytest.raises(TokenGone, match=r"is not there: the card in .* kept by another"):
            await signer.token.login(typed(DEFAULT_PIN))
        assert tokens.modules()[0].notes == (note,)
    await async_until(lambda: "ssh" in labels(tokens))
    assert tokens.modules()[0].notes == ()
    await token_of(tokens).login(typed(DEFAULT_PIN))
    assert reader.card.user is not None
    assert reader.card.user.presented == 1
