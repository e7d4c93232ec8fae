"""ssh-sk-helper: found, run once for each signature, and outlived when it misbehaves."""

import asyncio
import os
from pathlib import Path

import pytest

from hsmagent.daemon import sk_helper
from hsmagent.daemon.sk_helper import PLACES, SkHelper, find
from hsmagent.errors import PinIncorrect, PinNeeded, TokenError, TokenGone, Unavailable
from hsmagent.ssh import fido, keys, signature, wire
from hsmagent.ssh.fido import FidoSigner
from hsmagent.ssh.wire import Reader
from tests.parts.agent.authenticator import TYPES, Authenticator, new_key, runs
from tests.parts.until import async_until

KEY = new_key()


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    return Authenticator(tmp_path / "sk")


def signer(authenticator: Authenticator, seconds: float = 60.0) -> FidoSigner:
    environment = os.environ | {
        "SSH_SK_HELPER": str(authenticator.path),
        "LD_PRELOAD": "/nonexistent.so",
    }
    added = fido.read(Reader(KEY.private_fields + wire.text("me@home")))
    return FidoSigner(added.private, added.comment, "internal", SkHelper(environment, seconds))


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_beside_the_ssh_of_each_distribution(place: str, tmp_path: Path) -> None:
    helper, ssh = tmp_path / place / "ssh-sk-helper", tmp_path / "bin" / "ssh"
    for program in (helper, ssh):
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    assert find({"PATH": str(ssh.parent)}) == str(helper)
    assert find({"PATH": str(ssh.parent), "SSH_SK_HELPER": "/opt/it"}) == "/opt/it"


def test_the_installed_one_is_found() -> None:
    assert os.access(find({"PATH": os.environ["PATH"]}), os.X_OK)


async def test_where_there_is_none_the_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sk_helper, "PLACES", ("lib/nowhere",))
    with pytest.raises(Unavailable, match="not installed"):
        find({"PATH": str(tmp_path)})
    with pytest.raises(TokenError, match="not installed"):
        await SkHelper({"PATH": str(tmp_path)})(bytearray(b"\5"))
    with pytest.raises(TokenError, match="does not start"):
        await SkHelper({"SSH_SK_HELPER": str(tmp_path / "none")})(bytearray(b"\5"))


@pytest.mark.parametrize("kind", TYPES)
async def test_it_signs(kind: str, authenticator: Authenticator) -> None:
    key = new_key(kind)
    added = fido.read(Reader(key.private_fields + wire.text("")))
    helper = SkHelper({"SSH_SK_HELPER": str(authenticator.path)})
    blob = await FidoSigner(added.private, "", "/usr/lib/p.so", helper).sign(b"data", 0)
    assert signature.verifies(keys.decode(key.blob), blob, b"data")
    [asked] = authenticator.asked
    assert (asked["provider"], asked["pin"]) == ("/usr/lib/p.so", "")


async def test_one_process_for_each_signature(authenticator: Authenticator) -> None:
    ours = signer(authenticator)
    for _ in range(2):
        await ours.sign(b"data", 0)
    first, second = authenticator.asked
    assert first["pid"] != second["pid"]
    assert "LD_PRELOAD" not in first["environment"]


async def test_a_pin_is_wanted_wrong_right(authenticator: Authenticator) -> None:
    authenticator.behave(pin="123456")
    ours = signer(authenticator)
    with pytest.raises(PinNeeded, match="“me@home” wants its PIN"):
        await ours.sign(b"data", 0)
    with pytest.raises(PinIncorrect, match="the PIN of the FIDO key “me@home” is wrong"):
        await ours.sign(b"data", 0, bytearray(b"654321"))
    assert await ours.sign(b"data", 0, bytearray(b"123456"))
    assert [asked["pin"] for asked in authenticator.asked] == ["", "654321", "123456"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("crash", "ended without an answer \\(signal 11\\)"),
        ("leave", "ended without an answer \\(exit status 255\\)"),
        ("nonsense", "talks nonsense"),
        ("frame", "talks nonsense"),
        ("unasked", "talks nonsense"),
        ("version", "speaks version 6 .* and only version 5"),
        ("status", "failed after its answer \\(exit status 3\\)"),
        ("another key", "is not its own"),
        ("untouched", "was it touched in time"),
    ],
)
async def test_a_fault_costs_one_refusal(
    fault: str, says: str, authenticator: Authenticator
) -> None:
    ours = signer(authenticator)
    authenticator.behave(fault=fault)
    with pytest.raises(TokenError, match=says):
        await ours.sign(b"data", 0)
    authenticator.behave()
    assert await ours.sign(b"data", 0)


async def test_an_authenticator_that_is_not_plugged_in(authenticator: Authenticator) -> None:
    authenticator.behave(fault="unplugged")
    with pytest.raises(TokenGone, match="plug it in"):
        await signer(authenticator).sign(b"data", 0)


async def test_one_that_hangs_is_ended_in_time(authenticator: Authenticator) -> None:
    authenticator.behave(fault="hang")
    ours = signer(authenticator, seconds=3.0)
    with pytest.raises(TokenError, match="did not answer within 3 seconds"):
        await ours.sign(b"data", 0)
    for asked in authenticator.asked:
        assert not runs(asked["pid"])
    authenticator.behave()
    assert await signer(authenticator).sign(b"data", 0)


async def test_who_gives_up_ends_it_and_the_next_one_has_its_turn(
    authenticator: Authenticator,
) -> None:
    authenticator.behave(touch=True)
    ours = signer(authenticator)
    first, second = (asyncio.ensure_future(ours.sign(b"data", 0)) for _ in range(2))
    await async_until(lambda: authenticator.asked)
    first.cancel()
    await async_until(lambda: len(authenticator.asked) == 2)
    assert not runs(authenticator.asked[0]["pid"]), "one at a time"
    authenticator.touch()
    assert await second
