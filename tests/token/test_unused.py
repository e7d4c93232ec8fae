"""Every token that is not used says why, and what helps."""

import asyncio
from pathlib import Path

import pytest

from hsmagent.model import ModuleSpec
from hsmagent.token import pcscd, unused
from hsmagent.worker import spec
from hsmagent.worker.messages import CardReader, SlotInfo, TokenInfo
from tests.parts.token.faulty import Faulty
from tests.parts.token.softhsm import MODULE, SoftHsm
from tests.parts.until import async_until
from tests.token.conftest import NewTokens

HARDWARE = spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT
OPENSC = next(Path("/usr/lib").glob("*/opensc-pkcs11.so"), None)


def token(label: bytes, flags: int = spec.CKF_TOKEN_INITIALIZED) -> TokenInfo:
    return TokenInfo(label, b"", b"", b"1", flags, 4, 8, complete=False)


@pytest.mark.parametrize(
    ("slot", "note"),
    [
        (
            SlotInfo(1, HARDWARE, name=b"Reader", token=token(b"")),
            "“Reader” (slot 1) has no label and is not used: `hsmagent token init --label LABEL`",
        ),
        (
            SlotInfo(1, HARDWARE, name=b"Reader", token=token(b"", 0)),
            "is not initialised: ",
        ),
        (SlotInfo(1, HARDWARE, token=token(b"work")), "a second token “work” with the same serial"),
        (SlotInfo(1, HARDWARE, spec.CKR_DEVICE_ERROR, name=b"R"), "failed (CKR_DEVICE_ERROR); if"),
        (SlotInfo(1, HARDWARE, spec.CKR_TOKEN_NOT_RECOGNIZED, name=b"R"), "want another module"),
    ],
)
def test_each_says_why(slot: SlotInfo, note: str) -> None:
    used = SlotInfo(0, HARDWARE, name=b"Other", token=token(b"work"))
    (said,) = unused.notes((used, slot), frozenset({0}))
    assert note in said


def test_nothing_is_said_of_an_empty_reader_and_of_the_blank_one_beside_soft_tokens() -> None:
    slots = (
        SlotInfo(0, 0, token=token(b"work")),
        SlotInfo(1, 0, token=token(b"", 0)),
        SlotInfo(2, HARDWARE, name=b"Reader"),
    )
    assert unused.notes(slots, frozenset({0})) == ()


@pytest.mark.parametrize(
    ("exclusive", "mute", "notes"),
    [
        (True, False, ["the card in “Reader 00” is kept by another program to itself"]),
        (False, True, ["the card in “Reader 00” does not answer"]),
        (False, False, []),
    ],
)
def test_a_card_that_the_module_does_not_see(
    exclusive: bool,
    mute: bool,
    notes: list[str],
) -> None:
    reader = CardReader(
        b"Reader 00", has_card=True, in_use=False, exclusive=exclusive, mute=mute, insertions=1
    )
    said = unused.withheld((reader,), ())
    assert [each.partition(":")[0] for each in said] == notes
    ours = SlotInfo(0, HARDWARE, name=b"Reader 00", token=token(b"work"))
    assert unused.withheld((reader,), (ours,)) == ()


async def test_a_softhsm_without_a_token(tmp_path: Path, new_tokens: NewTokens) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=SoftHsm.create(tmp_path / "hsm").env))
    (note,) = tokens.modules()[0].notes
    assert "is not initialised" in note
    assert "SoftHSM slot" in note


async def test_a_blank_token_in_a_reader(faulty: Faulty, new_tokens: NewTokens) -> None:
    faulty.set(slot_flags=HARDWARE)
    tokens = new_tokens()
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    assert tokens.signers()
    (note,) = tokens.modules()[0].notes
    assert "is not initialised" in note


@pytest.mark.skipif(OPENSC is None, reason="needs OpenSC")
async def test_a_pcscd_that_refuses_us(tmp_path: Path, new_tokens: NewTokens) -> None:
    """As with polkit: it accepts and hangs up."""
    path = tmp_path / "comm"
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    async with server:
        assert await pcscd.ask(path) is pcscd.Service.REFUSES
        tokens = new_tokens()
        env = (("PCSCLITE_CSOCK_NAME", str(path)),)
        await tokens.add(ModuleSpec(str(OPENSC), env=env))
        await async_until(lambda: tokens.modules()[0].notes)
        assert tokens.modules()[0].notes == (pcscd.REFUSED,)
    assert await pcscd.ask(tmp_path / "none") is pcscd.Service.ABSENT
