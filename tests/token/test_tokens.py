import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.errors import LoginNeeded, PinIncorrect, PinLength, TokenError, TokenGone, WorkerDied
from hsmagent.model import KeyType, ModuleSpec, PinState, Scheme, TokenId
from hsmagent.token.login import Limits
from hsmagent.token.signer import TokenSigner
from hsmagent.token.states import TokenState
from hsmagent.token.token import Token
from hsmagent.token.tokens import Tokens
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import FakeClock, NewTokens

SCHEMES = {
    KeyType.RSA: [scheme for scheme in Scheme if "rsa" in scheme],
    KeyType.EC: [scheme for scheme in Scheme if "ecdsa" in scheme],
    KeyType.ED25519: [Scheme.ED25519],
}


def pin(text: str = PIN) -> bytearray:
    return bytearray(text.encode())


def token_of(tokens: Tokens) -> Token:
    return tokens.token(tokens.statuses()[0].id)


def signer_of(tokens: Tokens, label: str) -> TokenSigner:
    return next(signer for signer in tokens.signers() if signer.key.label == label)


async def test_every_key_is_listed_without_a_pin(tokens: Tokens) -> None:
    (status,) = tokens.statuses()
    assert (status.id.label, status.present, status.logged_in) == ("work", True, False)
    assert status.pin_state is PinState.OK
    assert (status.pin_min, status.pin_max) == (4, 255)
    assert status.login_required
    assert not status.pin_pad
    labels = [signer.key.label for signer in tokens.signers()]
    assert labels == ["p256", "p384", "p521", "ed25519", "rsa", "brainpool"]
    assert signer_of(tokens, "brainpool").key.curve == "brainpoolP256r1"
    for signer in tokens.signers():
        load_der_public_key(signer.key.spki)
        assert signer.key.token == status.id
        assert signer.key.can_sign


async def test_every_scheme_of_every_key_signs(tokens: Tokens) -> None:
    typed = pin()
    await token_of(tokens).login(typed)
    assert typed == bytes(len(PIN))
    for signer in tokens.signers():
        for scheme in SCHEMES[signer.key.key_type]:
            assert await signer.sign(scheme, b"data")  # checked against the public key inside


async def test_a_scheme_that_does_not_fit_the_key(tokens: Tokens) -> None:
    with pytest.raises(TokenError, match="EC key cannot sign with rsa"):
        await signer_of(tokens, "p256").sign(Scheme.RSA_PKCS1_SHA256, b"data")


async def test_more_data_than_a_worker_takes(tokens: Tokens) -> None:
    signer = signer_of(tokens, "ed25519")
    await signer.token.login(pin())
    assert await signer.sign(Scheme.ED25519, bytes(262_144))
    with pytest.raises(TokenError, match="too many to sign"):
        await signer.sign(Scheme.ED25519, bytes(1 << 20))
    assert signer.token.logged_in


async def test_no_signature_without_a_login(tokens: Tokens) -> None:
    signer = signer_of(tokens, "p256")
    with pytest.raises(LoginNeeded):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await signer.token.logout()
    with pytest.raises(LoginNeeded):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert not signer.token.status().logged_in


async def test_a_wrong_pin_is_told_and_the_right_one_still_works(
    own_hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
    token = token_of(tokens)
    typed = pin("00000000")
    with pytest.raises(PinIncorrect, match="PIN for “own” is wrong"):
        await token.login(typed)
    assert typed == bytes(8)
    assert token.status().pin_state is PinState.COUNT_LOW
    assert "wrong" in token.status().last_error
    await token.login(pin())
    assert token.status().pin_state is PinState.OK
    assert token.status().last_error == ""


@pytest.mark.parametrize("typed", ["", "123", "1" * 256])
async def test_a_pin_of_a_length_the_token_cannot_take_never_reaches_it(
    tokens: Tokens, typed: str
) -> None:
    with pytest.raises(PinLength, match="4 to 255"):
        await token_of(tokens).login(pin(typed))
    assert token_of(tokens).status().pin_state is PinState.OK


async def test_no_pin_pad(tokens: Tokens) -> None:
    with pytest.raises(TokenError, match="no PIN pad"):
        await token_of(tokens).login(None)


async def test_a_login_ends_when_unused_and_in_any_case(tokens: Tokens, clock: FakeClock) -> None:
    signer = signer_of(tokens, "p256")
    await signer.token.login(pin())
    status = signer.token.status()
    assert (status.idle_left, status.max_left) == (900, 28800)
    for _ in range(32):
        clock.now += 899
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    clock.now += 33
    status = signer.token.status()
    assert not status.logged_in
    assert status.max_left is None
    with pytest.raises(LoginNeeded, match="run out"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await signer.token.login(pin())
    clock.now += 900
    with pytest.raises(LoginNeeded, match="run out"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")


EPHEMERAL = ec.generate_private_key(ec.SECP384R1()).public_key()
Use = Callable[[TokenSigner], Awaitable[bytes]]
POINT = EPHEMERAL.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


async def test_a_use_that_is_not_noticed_keeps_no_login(tokens: Tokens, clock: FakeClock) -> None:
    uses: dict[str, Use] = {
        "p256": lambda signer: signer.sign(Scheme.ECDSA_SHA256, b"data"),
        "rsa": lambda signer: signer.decrypt_raw(b"\0" * 255 + b"\2"),
        "p384": lambda signer: signer.derive(POINT, cofactor=False),
    }
    for label, use in uses.items():
        signer = signer_of(tokens, label)
        await signer.token.login(pin())
        clock.now += 899
        assert await use(signer.unnoticed)
        assert signer.token.status().idle_left == 1
        await use(signer)
        assert signer.token.status().idle_left == 900
        await signer.token.logout()


async def test_a_login_ends_by_itself(hsm: SoftHsm, new_tokens: NewTokens) -> None:
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    tokens = new_tokens(clock=loop.time, limits=lambda _: Limits(0.05, 60), on_change=changed.set)
    await tokens.add(ModuleSpec(MODULE, env=hsm.env))
    token = token_of(tokens)
    await token.login(pin())
    async with asyncio.timeout(10):
        while token._life.state is TokenState.OPEN:
            changed.clear()
            await changed.wait()


async def test_release_shortens_the_idle_time(hsm: SoftHsm, new_tokens: NewTokens) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=hsm.env, release=7))
    await token_of(tokens).login(pin())
    assert token_of(tokens).status().idle_left == 7


async def test_many_sign_at_once_on_several_workers_with_one_pin(
    hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, workers=2, env=hsm.env))
    (module,) = tokens.modules()
    assert len(module.pids) == 2
    signer = signer_of(tokens, "p256")
    await signer.token.login(pin())
    data = [bytes([number]) * 40 for number in range(200)]
    signatures = await asyncio.gather(*(signer.sign(Scheme.ECDSA_SHA256, one) for one in data))
    assert len(set(signatures)) == 200


async def test_a_killed_worker_is_replaced_and_logged_out(tokens: Tokens) -> None:
    signer = signer_of(tokens, "p256")
    await signer.token.login(pin())
    (module,) = tokens.modules()
    os.kill(module.pids[0], signal.SIGKILL)
    with suppress(WorkerDied):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")  # may be the one that it died with
    with pytest.raises(LoginNeeded):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert not signer.token.status().logged_in
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert tokens.modules()[0].pids != module.pids


async def test_a_pool_goes_on_with_the_members_that_live(
    hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, workers=2, env=hsm.env))
    signer = signer_of(tokens, "p256")
    await signer.token.login(pin())
    os.kill(tokens.modules()[0].pids[0], signal.SIGKILL)
    for _ in range(20):
        with suppress(WorkerDied):
            await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert signer.token.status().logged_in


async def test_a_bad_module_shows_and_does_not_raise(new_tokens: NewTokens) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec("/nonexistent/module.so"))
    await tokens.add(ModuleSpec("/lib/x86_64-linux-gnu/libc.so.6"))
    missing, wrong = tokens.modules()
    assert missing.state == "not running"
    assert "cannot be loaded" in missing.last_error
    assert wrong.state == "not running"
    assert tokens.signers() == ()
    await tokens.refresh()


async def test_a_token_nobody_has_seen(tokens: Tokens) -> None:
    with pytest.raises(TokenGone, match="“other” is not there"):
        tokens.token(TokenId(MODULE, "other", "1", "model"))


async def test_remove_and_close_end_the_workers(hsm: SoftHsm, new_tokens: NewTokens) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=hsm.env))
    (pid,) = tokens.modules()[0].pids
    await token_of(tokens).login(pin())
    await tokens.remove(MODULE)
    assert tokens.modules() == ()
    assert tokens.signers() == ()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("turns", range(4))
async def test_a_token_that_is_handed_back_is_waited_for(
    hsm: SoftHsm, new_tokens: NewTokens, turns: int
) -> None:
    """A request that comes before the first look finds its key, as while the token was lent."""
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=hsm.env))
    name, before = token_of(tokens).id, [signer.key for signer in tokens.signers()]
    await tokens.lend(MODULE)
    back = asyncio.create_task(tokens.take_back(MODULE))
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    assert not tokens.statuses(), "the module has looked by now"
    assert [signer.key for signer in tokens.signers()] == before
    token, signer = tokens.token(name), signer_of(tokens, "p256")
    await token.look()
    assert token.status().present
    await token.login(pin())
    assert await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await back


async def test_what_was_deleted_meanwhile_is_gone_after_the_look(
    own_hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
    own_hsm.generate("own", "EC:prime256v1", "02", "second")
    await tokens.lend(MODULE)
    own_hsm.pkcs11_tool("own", "--delete-object", "--type", "privkey", "--id", "01")
    own_hsm.pkcs11_tool("own", "--delete-object", "--type", "pubkey", "--id", "01")
    await tokens.take_back(MODULE)
    assert [signer.key.label for signer in tokens.signers()] == ["second"]


async def test_a_signature_by_another_key_is_refused(
    own_hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    own_hsm.generate("own", "EC:prime256v1", "01", "p256")  # the same id, the same label
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
    await token_of(tokens).login(pin())
    assert "several keys share the id 01" in token_of(tokens).status().notes[0]
    first, second = tokens.signers()
    answers = await asyncio.gather(
        first.sign(Scheme.ECDSA_SHA256, b"data"),
        second.sign(Scheme.ECDSA_SHA256, b"data"),
        return_exceptions=True,
    )
    (refused,) = (answer for answer in answers if not isinstance(answer, bytes))
    assert "does not fit the key “p256”" in str(refused)


async def test_the_worker_cannot_be_dumped_or_debugged(tokens: Tokens) -> None:
    (pid,) = tokens.modules()[0].pids
    with open(f"/proc/{pid}/limits") as limits:  # noqa: ASYNC230, PTH123
        core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    # What is not dumpable belongs to root in /proc.
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0  # noqa: PTH116
