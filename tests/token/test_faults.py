"""What a broken module, a pulled card or a blocked PIN does, and what it must not do."""

import asyncio
import os
import signal
import time

import pytest

from hsmagent.errors import (
    LoginNeeded,
    PinError,
    PinIncorrect,
    PinLength,
    PinLocked,
    TokenError,
    TokenGone,
    TriesLow,
    WorkerDied,
)
from hsmagent.frame import wipe
from hsmagent.model import ModuleSpec, PinState, Scheme
from hsmagent.token.member import Deadlines
from hsmagent.token.signer import TokenSigner
from hsmagent.token.token import Token
from hsmagent.token.tokens import Tokens
from hsmagent.worker import spec
from tests.parts.token.faulty import FOREVER, Action, Faulty
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import NewTokens

# Long enough for a busy machine, short enough for a test.
SHORT = Deadlines(start=10, look=2, poll=2, login=2, pin_pad=2, operate=2, close=2)
# Every call that listing, logging in and signing make.
CALLS = (
    "C_Initialize",
    "C_GetInfo",
    "C_GetSlotList",
    "C_GetSlotInfo",
    "C_GetTokenInfo",
    "C_OpenSession",
    "C_CloseSession",
    "C_GetSessionInfo",
    "C_Login",
    "C_Logout",
    "C_GetAttributeValue",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_SignInit",
    "C_Sign",
)
USED_WITH_A_LOGIN = ("C_SignInit", "C_Sign")
HARDWARE = spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT


def pin(text: str = PIN) -> bytearray:
    return bytearray(text.encode())


def token_of(tokens: Tokens) -> Token:
    return tokens.token(tokens.statuses()[0].id)


def only_signer(tokens: Tokens) -> TokenSigner:
    (signer,) = tokens.signers()
    return signer


async def loaded(faulty: Faulty, new_tokens: NewTokens, **changes: object) -> Tokens:
    tokens = new_tokens(deadlines=SHORT, **changes)
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    return tokens


async def until(condition: object, seconds: float = 15) -> None:
    """Wait until condition() is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def works(tokens: Tokens) -> None:
    """See that a login and a signature work, however long the back-off has to be waited for."""
    async with asyncio.timeout(30):
        while True:
            try:
                await tokens.refresh()
                signer = only_signer(tokens)
                if not signer.token.logged_in:
                    await signer.token.login(pin())
                await signer.sign(Scheme.ECDSA_SHA256, b"data")
            except (TokenError, ValueError):
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_crash_in_sign(faulty: Faulty, new_tokens: NewTokens) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    faulty.strike("C_Sign", Action.CRASH)
    with pytest.raises(WorkerDied, match="crashed and was restarted"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    with pytest.raises(LoginNeeded):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert "crashed" in signer.token.status().last_error
    assert faulty.calls("C_Login") == 1
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert faulty.calls("C_Login") == 2


async def test_a_hang_in_sign_ends_at_its_deadline(faulty: Faulty, new_tokens: NewTokens) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    faulty.strike("C_Sign", Action.HANG)
    before = time.monotonic()
    with pytest.raises(WorkerDied, match="did not answer in time"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert time.monotonic() - before < SHORT.operate + 5
    await works(tokens)


async def test_a_hang_answers_all_who_wait_and_repeats_nothing(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    faulty.strike("C_Sign", Action.HANG)
    waiting = [signer.sign(Scheme.ECDSA_SHA256, bytes([n])) for n in range(40)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, WorkerDied | LoginNeeded) for answer in answers)
    assert faulty.calls("C_Sign") == 1
    assert faulty.calls("C_Login") == 1


async def test_listing_never_waits_behind_a_signature(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    faulty.strike("C_Sign", Action.HANG)
    signing = asyncio.ensure_future(signer.sign(Scheme.ECDSA_SHA256, b"data"))
    await until(lambda: faulty.calls("C_Sign") == 1)
    assert tokens.signers() == (signer,)
    assert tokens.statuses()[0].logged_in
    assert not signing.done()
    with pytest.raises(WorkerDied):
        await signing


@pytest.mark.parametrize("action", [Action.CRASH, Action.HANG])
async def test_a_login_that_kills_the_worker_is_not_repeated(
    faulty: Faulty, new_tokens: NewTokens, action: Action
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    faulty.strike("C_Login", action)
    typed = pin()
    with pytest.raises(WorkerDied):
        await token.login(typed)
    assert typed == bytes(len(PIN))
    await until(lambda: tokens.modules()[0].state == "running")
    assert faulty.calls("C_Login") == 1
    assert not token.logged_in
    await token.login(pin())
    assert faulty.calls("C_Login") == 2


@pytest.mark.parametrize(
    "rv", [spec.CKR_GENERAL_ERROR, spec.CKR_DEVICE_ERROR, spec.CKR_USER_ALREADY_LOGGED_IN, 0x104]
)
async def test_a_failed_login_is_not_repeated(
    faulty: Faulty, new_tokens: NewTokens, rv: int
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    faulty.strike("C_Login", Action.RETURN, rv)
    with pytest.raises(PinError, match=spec.rv_name(rv)):
        await token.login(pin())
    assert faulty.calls("C_Login") == 1
    assert not token.logged_in
    await token.login(pin())
    assert token.logged_in
    assert faulty.calls("C_Login") == 2


async def test_a_login_that_worked_and_said_it_did_not_is_undone(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    faulty.strike("C_Login", Action.LIE, spec.CKR_DEVICE_ERROR)
    with pytest.raises(PinError):
        await token.login(pin())
    # Were the first login still there, any PIN would be taken for the right one.
    with pytest.raises(PinIncorrect):
        await token.login(pin("11111111"))


async def test_three_wrong_pins(faulty: Faulty, new_tokens: NewTokens) -> None:
    faulty.set(tries_max=3, tries_left=3)
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    for state, error in (
        (PinState.COUNT_LOW, PinIncorrect),
        (PinState.FINAL_TRY, PinIncorrect),
        (PinState.LOCKED, PinLocked),
    ):
        with pytest.raises(error):
            await token.login(pin("11111111"), at_worst=PinState.FINAL_TRY)
        assert token.status().pin_state is state
    assert faulty.calls("C_Login") == 3
    with pytest.raises(PinLocked, match="blocked: unblock it"):
        await token.login(pin())
    assert faulty.calls("C_Login") == 3
    faulty.set(tries_left=3)  # unblocked with its own tool
    await token.login(pin())
    assert token.status().pin_state is PinState.OK


@pytest.mark.parametrize(
    ("left", "at_worst"), [(2, PinState.OK), (1, PinState.OK), (1, PinState.COUNT_LOW)]
)
async def test_a_pin_is_not_tried_when_it_may_cost_more_than_its_giver_knew(
    faulty: Faulty, new_tokens: NewTokens, left: int, at_worst: PinState
) -> None:
    faulty.set(tries_max=3, tries_left=3)
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    faulty.set(tries_left=left)  # another program used them up
    with pytest.raises(TriesLow, match="was not tried"):
        await token.login(pin("11111111"), at_worst=at_worst)
    assert faulty.calls("C_Login") == 0
    assert await token.login(pin(), at_worst=PinState.FINAL_TRY)


async def test_who_is_logged_in_learns_nothing_of_a_pin(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    assert await token.login(pin())
    assert not await token.login(pin("11111111"))


@pytest.mark.parametrize("calls", [0, 1])
async def test_a_logout_ends_a_login_under_way(
    faulty: Faulty, new_tokens: NewTokens, calls: int
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    login = asyncio.ensure_future(token.login(pin()))
    await asyncio.sleep(0)
    while faulty.calls("C_Login") < calls:
        await asyncio.sleep(0)
    await token.logout()
    with pytest.raises(PinError, match="was locked while"):
        await login
    assert not token.logged_in
    await until(lambda: faulty.calls("C_Logout") == calls)
    assert faulty.calls("C_Login") == calls
    assert await token.login(pin())


async def test_a_wrong_pin_costs_one_try_however_many_workers(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    faulty.set(tries_max=3, tries_left=3)
    tokens = new_tokens(deadlines=SHORT)
    await tokens.add(ModuleSpec(faulty.module, workers=3, env=faulty.env))
    token = token_of(tokens)
    with pytest.raises(PinIncorrect):
        await token.login(pin("11111111"))
    assert faulty.calls("C_Login") == 1
    assert faulty.get("tries_left") == 2
    await token.login(pin())
    assert faulty.calls("C_Login") == 4


async def test_a_login_that_is_lost_in_the_look_behind_it_is_no_success(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    faulty.strike("C_FindObjectsInit", Action.HANG)
    with pytest.raises(WorkerDied, match=r"is lost again: .* did not answer"):
        await token.login(pin())
    assert not token.logged_in
    faulty.heal()
    await works(tokens)
    assert faulty.calls("C_Login") == 2


async def test_a_lock_does_not_wait_long_for_a_hanging_logout(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = new_tokens(deadlines=Deadlines(logout=0.5))
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    token = token_of(tokens)
    await token.login(pin())
    (before,) = tokens.modules()[0].pids
    faulty.strike("C_Logout", Action.HANG)
    async with asyncio.timeout(10):
        await token.logout()
    assert not token.logged_in
    assert before not in tokens.modules()[0].pids  # it took the login with it


async def test_two_logins_at_once_are_one(faulty: Faulty, new_tokens: NewTokens) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    await asyncio.gather(token.login(pin()), token.login(pin()))
    assert faulty.calls("C_Login") == 1


async def test_a_login_goes_on_when_its_caller_gives_up(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    calling = asyncio.ensure_future(token.login(pin()))
    await until(lambda: faulty.calls("C_Login") == 1)
    calling.cancel()
    await until(lambda: token.logged_in)


async def test_a_caller_that_gives_up_may_wipe_its_pin(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    token = token_of(tokens)
    typed = pin()
    calling = asyncio.ensure_future(token.login(typed))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    wipe(typed)  # as a dialog does, whatever became of it
    await until(lambda: token.logged_in)
    assert faulty.calls("C_Login") == 1


async def test_pin_pad(faulty: Faulty, new_tokens: NewTokens) -> None:
    faulty.set(token_flags=spec.CKF_PROTECTED_AUTHENTICATION_PATH)
    tokens = new_tokens(deadlines=SHORT)
    await tokens.add(ModuleSpec(faulty.module, env=(*faulty.env, ("FAULTY_PIN_PAD", PIN))))
    token = token_of(tokens)
    assert token.status().pin_pad
    await token.login(None)
    await only_signer(tokens).sign(Scheme.ECDSA_SHA256, b"data")
    assert faulty.calls("C_Login") == 1


async def test_a_token_that_is_pulled_out_and_put_back(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    faulty.set(slot_flags=HARDWARE)
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    faulty.unplug()
    before = time.monotonic()
    await until(lambda: not tokens.signers())
    assert time.monotonic() - before < 3
    (status,) = tokens.statuses()
    assert (status.present, status.logged_in) == (False, False)
    assert "removed" in status.last_error
    with pytest.raises((LoginNeeded, TokenGone)):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    with pytest.raises(TokenGone, match="plug it in"):
        await signer.token.login(pin())
    faulty.plug()
    await until(tokens.signers)
    assert faulty.calls("C_Login") == 1
    assert not signer.token.logged_in
    await signer.token.login(pin())
    await only_signer(tokens).sign(Scheme.ECDSA_SHA256, b"data")


async def test_a_token_that_is_pulled_out_while_it_signs(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    faulty.unplug()
    with pytest.raises(TokenGone, match="plug it in"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert not signer.token.logged_in
    faulty.plug()
    await works(tokens)
    assert faulty.calls("C_Login") == 2


async def test_a_card_that_another_program_resets(faulty: Faulty, new_tokens: NewTokens) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")
    faulty.reset_card()
    with pytest.raises(LoginNeeded):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert not signer.token.logged_in
    assert faulty.calls("C_Login") == 1
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")


async def test_a_login_that_a_look_finds_lost_is_asked_for_by_who_waits_behind_it(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    (pid,) = tokens.modules()[0].pids
    os.kill(pid, signal.SIGSTOP)  # so that both are with the worker before it answers one
    looking = asyncio.create_task(signer.token.look())
    for _ in range(10):
        await asyncio.sleep(0)
    signing = asyncio.create_task(signer.sign(Scheme.ECDSA_SHA256, b"data"))
    await asyncio.sleep(0)
    faulty.reset_card()
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(LoginNeeded, match="has ended"):
        await signing
    await looking
    assert not signer.token.logged_in
    assert faulty.calls("C_Login") == 1


async def test_a_module_that_lists_its_slots_no_more_is_replaced_by_a_refresh(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    tokens = await loaded(faulty, new_tokens)
    await token_of(tokens).login(pin())
    before = tokens.modules()[0].pids
    faulty.strike("C_GetSlotList", Action.RETURN, spec.CKR_DEVICE_ERROR)
    await tokens.refresh()
    assert tokens.modules()[0].pids != before
    assert tokens.signers()
    assert not token_of(tokens).logged_in


async def test_an_event_is_seen_whatever_the_worker_before_has_counted(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    """A card that is pulled out and put back at once, after the worker was replaced."""
    faulty.set(slot_flags=HARDWARE)
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    for flag, seen in (
        (spec.CKF_USER_PIN_COUNT_LOW, PinState.COUNT_LOW),
        (spec.CKF_USER_PIN_FINAL_TRY, PinState.FINAL_TRY),
        (spec.CKF_USER_PIN_LOCKED, PinState.LOCKED),
    ):
        await until(lambda: tokens.modules()[0].state == "running")
        faulty.set(token_flags=flag)
        faulty.strike("C_WaitForSlotEvent", Action.RETURN, spec.CKR_OK)
        await until(lambda wanted=seen: signer.token.status().pin_state is wanted)
        before = tokens.modules()[0].pids
        os.kill(before[0], signal.SIGKILL)
        await until(lambda gone=before: tokens.modules()[0].pids != gone)


async def test_a_failed_operation_leaves_the_login(faulty: Faulty, new_tokens: NewTokens) -> None:
    tokens = await loaded(faulty, new_tokens)
    signer = only_signer(tokens)
    await signer.token.login(pin())
    for function in USED_WITH_A_LOGIN:
        faulty.strike(function, Action.RETURN, spec.CKR_DEVICE_ERROR)
        with pytest.raises(TokenError, match="CKR_DEVICE_ERROR"):
            await signer.sign(Scheme.ECDSA_SHA256, b"data")
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    assert faulty.calls("C_Login") == 1


async def test_a_failing_slot_hides_no_other(
    faulty: Faulty, own_hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    own_hsm.init_token("second")
    own_hsm.generate("second", "EC:prime256v1", "01", "other")
    tokens = await loaded(faulty, new_tokens)
    assert len(tokens.signers()) == 2
    failing, other = (status.id for status in tokens.statuses())
    # SoftHSM's slot ids are the serial's last 31 bits.
    faulty.set(failing_slot=(int(failing.serial[-8:], 16) & 0x7FFFFFFF) + 1)
    await tokens.token(other).look()
    signer = only_signer(tokens)
    assert "CKR_DEVICE_ERROR" in tokens.modules()[0].notes[0]
    await signer.token.login(pin())
    await signer.sign(Scheme.ECDSA_SHA256, b"data")


async def test_what_a_module_says_is_logged_by_the_line(
    faulty: Faulty, new_tokens: NewTokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    said = f"ERROR: no store\n\n{'x' * 300}\nthe end"
    env = (*faulty.env, ("FAULTY_SAYS", said))
    tokens = new_tokens()
    await tokens.add(ModuleSpec(faulty.module, env=env))
    await tokens.remove(faulty.module)
    lines = [r.getMessage().partition(" says: ")[2] for r in caplog.records if " says: " in r.msg]
    assert lines[0] == "ERROR: no store"
    assert lines[-1] == "the end"
    assert set("".join(lines[1:-1])) <= {"x", "…"}


async def test_odd_objects_hide_no_others(
    faulty: Faulty, own_hsm: SoftHsm, new_tokens: NewTokens
) -> None:
    own_hsm.generate("own", "EC:prime256v1", "02", "odd one")
    own_hsm.generate("own", "EC:prime256v1", "03", b"caf\xe9".decode(errors="surrogateescape"))
    own_hsm.generate("own", "rsa:1024", "04", "short")
    faulty.set(odd_type=0x80000123)
    tokens = await loaded(faulty, new_tokens)
    assert [signer.key.label for signer in tokens.signers()] == ["p256", "caf\ufffd"]
    notes = " ".join(tokens.statuses()[0].notes)
    assert "“odd one” (id 02): a key of type 0x80000123 is not supported" in notes
    assert "“short” (id 04): an RSA key of 1024 bits is not used" in notes
    await token_of(tokens).login(pin())
    for signer in tokens.signers():
        await signer.sign(Scheme.ECDSA_SHA256, b"data")


async def test_two_private_keys_under_one_id(own_hsm: SoftHsm, new_tokens: NewTokens) -> None:
    own_hsm.generate("own", "EC:prime256v1", "01", "twin")
    tokens = new_tokens()
    await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
    assert "several keys share the id 01" in tokens.statuses()[0].notes[0]
    await token_of(tokens).login(pin())
    # The labels tell the twins apart here.
    assert [signer.key.label for signer in tokens.signers()] == ["p256", "twin"]
    for signer in tokens.signers():
        await signer.sign(Scheme.ECDSA_SHA256, b"data")


async def test_a_token_that_hides_its_keys_until_login(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    faulty.set(hide_public=1)
    tokens = await loaded(faulty, new_tokens)
    assert tokens.signers() == ()
    await token_of(tokens).login(pin())
    key = only_signer(tokens).key
    await token_of(tokens).logout()
    await tokens.refresh()
    assert only_signer(tokens).key == key
    again = await loaded(faulty, new_tokens)  # after a restart of the daemon
    assert only_signer(again).key == key
    await token_of(again).login(pin())
    await only_signer(again).sign(Scheme.ECDSA_SHA256, b"data")


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(
    ("action", "argument"),
    [
        (Action.RETURN, spec.CKR_GENERAL_ERROR),
        (Action.RETURN, spec.CKR_DEVICE_REMOVED),
        (Action.CRASH, 0),
        (Action.GARBAGE, 2**62),
    ],
)
async def test_every_call_may_fail_and_the_next_request_works(
    faulty: Faulty, new_tokens: NewTokens, function: str, action: Action, argument: int
) -> None:
    faulty.strike(function, action, argument)
    tokens = await loaded(faulty, new_tokens)
    typed = 0
    for _ in range(3):
        try:
            await tokens.refresh()
            signer = only_signer(tokens)
            if not signer.token.logged_in:
                typed += 1
                await signer.token.login(pin())
            await signer.sign(Scheme.ECDSA_SHA256, b"data")
            await signer.token.logout()
        except (TokenError, ValueError):
            continue
    faulty.heal()
    assert faulty.calls("C_Login") <= typed
    await works(tokens)


async def test_a_module_that_keeps_crashing_is_restarted_ever_more_slowly(
    faulty: Faulty, new_tokens: NewTokens
) -> None:
    faulty.strike("C_GetSlotList", Action.CRASH, times=FOREVER)
    tokens = await loaded(faulty, new_tokens)
    await asyncio.sleep(3)
    assert faulty.calls("C_Initialize") <= 5
    assert "crashed" in tokens.modules()[0].last_error
    assert tokens.modules()[0].state == "not running"


async def test_a_pin_per_use(own_hsm: SoftHsm, faulty: Faulty, new_tokens: NewTokens) -> None:
    own_hsm.generate("own", "EC:prime256v1", "09", "each time", "--always-auth")
    tokens = await loaded(faulty, new_tokens)
    await token_of(tokens).login(pin())
    signer = next(s for s in tokens.signers() if s.key.label == "each time")
    assert signer.key.always_authenticate
    typed = pin()
    await signer.sign(Scheme.ECDSA_SHA256, b"data", typed)
    assert typed == bytes(len(PIN))
    with pytest.raises(PinError, match="wants its PIN for each use"):
        await signer.sign(Scheme.ECDSA_SHA256, b"data")
    with pytest.raises(PinIncorrect):
        await signer.sign(Scheme.ECDSA_SHA256, b"data", pin("11111111"))
    assert signer.token.status().pin_state is PinState.COUNT_LOW
    await signer.sign(Scheme.ECDSA_SHA256, b"data", pin())
    assert faulty.calls("C_Login") == 4
    too_short = pin("12")
    with pytest.raises(PinLength):
        await signer.sign(Scheme.ECDSA_SHA256, b"data", too_short)
    assert too_short == bytes(2)
    assert faulty.calls("C_Login") == 4
