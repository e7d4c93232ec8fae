import asyncio
from dataclasses import replace

import pytest

from hsmagent.config.file import KeyConfig
from hsmagent.door.gate import Gate, Wants
from hsmagent.door.policy import CACHED, Policy, Verdict
from hsmagent.errors import (
    Cancelled,
    LoginNeeded,
    PinIncorrect,
    PinLocked,
    Refused,
    TimedOut,
    TokenError,
    Unavailable,
    WorkerDied,
)
from hsmagent.model import Key, PurposeKind, Request, Scheme
from hsmagent.prompt.base import Prompter
from tests.door.doubles import (
    RIGHT,
    SOFTWARE_KEY,
    FakePerson,
    FakeSigner,
    FakeStore,
    FakeToken,
    Nobody,
    request,
)
from tests.parts.values import KEY, TOKEN


class Door:
    """A gate with one token behind it."""

    def __init__(
        self,
        prompter: Prompter,
        token: FakeToken | None = None,
        entries: tuple[KeyConfig, ...] = (),
        timeout: float = 60.0,
        store: FakeStore | None = None,
    ) -> None:
        self.token = token or FakeToken()
        self.log: list[tuple[str, str]] = []
        self.now = 0.0
        self.signer = FakeSigner(KEY, self.token)
        self.gate = Gate(
            tokens=lambda _token: self.token,
            policy=Policy(entries, lambda _key, _entry: True, lambda: self.now),
            prompter=prompter,
            record=lambda _request, outcome, reason: self.log.append((outcome, reason)),
            timeout=timeout,
            store=lambda _token: store,
        )

    async def sign(self, wish: Request | None = None) -> bytes:
        return await self.gate.perform(
            wish or request(), lambda pin: self.signer.sign(Scheme.ECDSA_SHA256, b"data", pin)
        )


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0)


async def test_the_pin_is_asked_when_the_key_is_used_and_then_not_again() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    assert await door.sign() == b"signed data"
    assert await door.sign() == b"signed data"
    assert len(person.shown) == 1
    assert door.token.login_calls == 1
    assert door.log == [("used", ""), ("used", "")]


async def test_a_token_that_wants_no_login_after_all_raises_no_prompt() -> None:
    """Until its module has looked at it, a token is taken to want one."""

    class Awaited(FakeToken):
        async def look(self, *, objects: bool = False) -> None:
            await super().look(objects=objects)
            self.login_required = False

    person = FakePerson()
    door = Door(person, Awaited())
    assert await door.sign() == b"signed data"
    assert not person.shown
    assert not door.token.tried


async def test_the_dialog_says_which_token_who_asks_for_what_and_where() -> None:
    person = FakePerson([RIGHT])
    await Door(person).sign()
    [text] = person.shown
    assert text.message == "PIN for the token “work”"
    assert "ssh ← git wants to log in as alice at git.example.org" in text.description
    assert "ssh (ECDSA P-256)" in text.description
    assert text.warning == ""


async def test_a_wrong_pin_asks_again_with_a_warning() -> None:
    person = FakePerson([b"111111", RIGHT])
    door = Door(person)
    assert await door.sign() == b"signed data"
    assert "Wrong PIN." in person.shown[1].warning
    assert "Few tries" in person.shown[1].warning
    assert door.token.login_calls == 2
    assert door.log == [("wrong-pin", "a wrong PIN was typed"), ("used", "")]


async def test_the_last_try_needs_a_second_yes() -> None:
    person = FakePerson([b"111111", b"222222", RIGHT])
    door = Door(person)
    assert await door.sign() == b"signed data"
    assert len(person.confirmed) == 1
    assert "blocks the token" in person.confirmed[0].warning
    assert "One try is left" in person.shown[2].warning


async def test_tries_that_another_program_used_up_are_seen_before_asking() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    door.token.used_elsewhere = 2
    await door.sign()
    assert len(person.confirmed) == 1
    door.token.logged_in = False
    door.token.used_elsewhere = 3
    with pytest.raises(PinLocked):
        await door.sign()


async def test_the_last_try_is_left_untouched_when_the_person_says_no() -> None:
    person = FakePerson([RIGHT], agrees=False)
    door = Door(person, FakeToken(tries=1))
    with pytest.raises(Cancelled, match="left untouched"):
        await door.sign()
    assert door.token.login_calls == 0
    assert person.shown == []


async def test_a_blocked_token_never_prompts_and_names_the_remedy() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, FakeToken(tries=0))
    with pytest.raises(PinLocked, match="unblock it"):
        await door.sign()
    assert (person.shown, door.token.login_calls) == ([], 0)


async def test_blocking_it_in_the_dialog_ends_the_request() -> None:
    person = FakePerson([b"333333", RIGHT])
    door = Door(person, FakeToken(tries=1))
    with pytest.raises(PinLocked, match="unblock it"):
        await door.sign()
    assert door.token.login_calls == 1
    assert person.pins == [RIGHT]


@pytest.mark.parametrize("pin", [b"", b"123", b"1" * 17])
async def test_a_pin_that_cannot_be_right_costs_no_try(pin: bytes) -> None:
    person = FakePerson([pin, RIGHT])
    door = Door(person)
    await door.sign()
    assert door.token.login_calls == 1
    assert person.shown[1].warning != ""


async def test_cancel_refuses_everyone_who_waits() -> None:
    person = FakePerson()
    person.hold = asyncio.Event()
    door = Door(person)
    waiting = [asyncio.ensure_future(door.sign()) for _ in range(3)]
    await until(lambda: person.shown)
    person.hold.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [Cancelled] * 3
    assert len(person.shown) == 1
    assert [outcome for outcome, _ in door.log] == ["refused"] * 3


async def test_one_prompt_serves_all_and_lists_those_who_joined() -> None:
    person = FakePerson([b"111111", RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    first = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    others = [asyncio.ensure_future(door.sign(request(program=f"p{n}"))) for n in range(5)]
    await asyncio.sleep(0)
    person.hold.set()
    assert await asyncio.gather(first, *others) == [b"signed data"] * 6
    again = person.shown[1].description
    assert "Also waiting:" in again
    assert "p0 ← git wants" in again
    assert "and 2 more" in again
    assert door.token.login_calls == 2


async def test_who_waits_for_a_pin_is_told() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    signing = [asyncio.ensure_future(door.sign(request(program=p))) for p in ("one", "two")]
    await until(lambda: person.shown)
    pending = door.gate.pending()
    assert [each.request.peer.process.program for each in pending] == ["one", "two"]
    assert {each.wants for each in pending} == {Wants.PIN}
    signing.pop().cancel()
    await until(lambda: len(door.gate.pending()) == 1)
    person.hold.set()
    await signing[0]
    assert door.gate.pending() == ()


async def test_answers_in_vain_end_it() -> None:
    person = FakePerson([b"", b"12", b"111111", RIGHT])
    door = Door(person)
    with pytest.raises(Refused, match="3 answers in a row"):
        await door.sign()
    assert (person.pins, person.open) == ([RIGHT], 0)


async def test_tries_that_are_used_up_under_the_dialog_want_a_second_question() -> None:
    person = FakePerson([b"111111", RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    signing = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    door.token.used_elsewhere = 2
    person.hold.set()
    assert await signing == b"signed data"
    assert door.token.tried == [RIGHT]
    assert len(person.confirmed) == 1
    assert "One try is left" in person.shown[1].warning


async def test_a_pin_for_which_nobody_waits_is_not_tried() -> None:
    person = FakePerson([b"111111"])
    person.hold = asyncio.Event()
    door = Door(person)
    signing = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    person.hold.set()  # the person presses Enter at the same moment
    door.gate.close("the screen is locked")
    with pytest.raises(Refused, match="the screen is locked"):
        await signing
    await until(lambda: person.open == 0)
    await door.token.look()  # behind a login, if there is one
    assert door.token.tried == []


async def test_who_is_unlocked_is_not_asked() -> None:
    person = FakePerson([RIGHT, b"111111"])
    door = Door(person)
    await door.gate.raise_prompt(request())
    await door.gate.raise_prompt(request())
    assert person.pins == [b"111111"]
    door.token.logged_in = door.token.login_required = False
    await door.gate.raise_prompt(request())
    assert person.pins == [b"111111"]


async def test_a_login_that_outlives_its_request_serves_the_next_one() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    door.token.hold = asyncio.Event()
    gone = asyncio.ensure_future(door.sign())
    await until(lambda: door.token.tried)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    signing = asyncio.ensure_future(door.sign())
    await asyncio.sleep(0)
    door.token.hold.set()
    assert await signing == b"signed data"
    assert (len(person.shown), door.token.tried) == (1, [RIGHT])


# -- a stored PIN ----------------------------------------------------------------------------


async def test_a_stored_pin_is_not_tried_once_tries_were_used_up() -> None:
    store = FakeStore(b"333333")
    person = FakePerson([RIGHT])
    door = Door(person, store=store)

    def another_program() -> None:
        door.token.used_elsewhere = 1

    store.on_take = another_program
    assert await door.sign() == b"signed data"
    assert door.token.tried == [RIGHT]
    assert (store.given, store.kept, store.pin) == ([b"333333"], 1, RIGHT)


async def test_a_wrong_stored_pin_is_tried_once() -> None:
    store = FakeStore(b"333333")
    door = Door(FakePerson([RIGHT]), store=store)
    await door.sign()
    assert (door.token.tried, store.pin) == ([b"333333", RIGHT], RIGHT)


async def test_a_pin_that_was_not_tried_is_not_stored() -> None:
    store = FakeStore()
    person = FakePerson([b"111111"])
    person.hold = asyncio.Event()
    door = Door(person, store=store)
    signing = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    door.token.logged_in = True  # by `ssh-add -s`
    person.hold.set()
    assert await signing == b"signed data"
    assert (door.token.tried, store.pin) == ([], b"")


async def test_a_pin_given_in_a_terminal_is_stored_too() -> None:
    store = FakeStore()
    door = Door(Nobody(), store=store)
    await door.gate.unlock(TOKEN, bytearray(RIGHT))
    assert store.pin == RIGHT


async def test_a_keyring_that_hangs_holds_nobody_up_who_waits_for_a_terminal() -> None:
    store = FakeStore()
    store.hold = asyncio.Event()
    door = Door(Nobody(), store=store)
    waiting = asyncio.ensure_future(door.sign())
    await asyncio.sleep(0)
    unlocking = asyncio.ensure_future(door.gate.unlock(TOKEN, bytearray(RIGHT)))
    assert await asyncio.wait_for(waiting, 10) == b"signed data"
    store.hold.set()
    await unlocking
    assert store.pin == RIGHT


async def test_a_wrong_pin_is_noted_wherever_it_came_from() -> None:
    wrong = bytearray(b"111111")
    nobody = Door(Nobody())
    with pytest.raises(PinIncorrect):
        await nobody.gate.unlock(TOKEN, wrong[:], wish=request())
    assert nobody.log == [("wrong-pin", "a wrong PIN was typed")]
    kept = Door(FakePerson([RIGHT]), store=FakeStore(bytes(wrong)))
    await kept.sign()
    assert [outcome for outcome, _ in kept.log] == ["wrong-pin", "used"]
    assert "keyring" in kept.log[0][1]
    each_time = door_each_time(FakePerson([bytes(wrong), RIGHT]))
    each_time.token.logged_in = True
    await each_time.sign(request(EACH_TIME))
    assert [outcome for outcome, _ in each_time.log] == ["wrong-pin", "used"]


async def test_a_prompt_of_the_desktop_that_is_closed_is_noted() -> None:
    door = Door(FakePerson([b"111111"]))
    with pytest.raises(Cancelled):
        await door.gate.raise_prompt(request())
    assert [outcome for outcome, _ in door.log] == ["wrong-pin", "refused"]


# -- at the same time ------------------------------------------------------------------------


async def test_an_unlock_in_a_terminal_serves_all_and_closes_the_dialog() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    waiting = [asyncio.ensure_future(door.sign()) for _ in range(2)]
    await until(lambda: person.shown)
    await door.gate.unlock(TOKEN, bytearray(RIGHT))
    assert await asyncio.gather(*waiting) == [b"signed data"] * 2
    await until(lambda: person.open == 0)
    assert door.token.login_calls == 1


async def test_a_client_that_leaves_takes_its_dialog_along() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    gone = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await until(lambda: person.open == 0)
    person.hold.set()
    assert await door.sign() == b"signed data"
    assert door.token.login_calls == 1


async def test_who_comes_as_the_last_one_leaves_is_asked_for() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    gone = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    gone.cancel()
    next_one = asyncio.ensure_future(door.sign())
    await asyncio.gather(gone, return_exceptions=True)
    person.hold.set()
    assert await asyncio.wait_for(next_one, 10) == b"signed data"


async def test_without_a_prompter_a_request_waits_for_the_terminal() -> None:
    door = Door(Nobody())
    waiting = asyncio.ensure_future(door.sign())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await door.gate.unlock(TOKEN, bytearray(RIGHT))
    assert await waiting == b"signed data"


async def test_and_is_refused_when_nobody_comes() -> None:
    door = Door(Nobody(), timeout=0.01)
    with pytest.raises(TimedOut, match="run `hsmagent unlock work`"):
        await door.sign()


async def test_a_fault_during_login_is_not_tried_again() -> None:
    person = FakePerson([RIGHT, RIGHT])
    token = FakeToken()
    token.fault = WorkerDied("the module crashed")
    door = Door(person, token)
    with pytest.raises(WorkerDied):
        await door.sign()
    assert token.login_calls == 1
    assert person.pins == [RIGHT]
    assert door.log[0][0] == "failed"


async def test_a_login_lost_under_us_asks_again_once() -> None:
    person = FakePerson([RIGHT, RIGHT])
    door = Door(person)
    await door.sign()
    door.signer.loses_login = 1
    assert await door.sign() == b"signed data"
    assert door.token.login_calls == 2
    assert len(person.shown) == 2


async def test_a_login_lost_again_and_again_is_an_error() -> None:
    person = FakePerson([RIGHT, RIGHT, RIGHT])
    door = Door(person)
    door.signer.loses_login = 2
    with pytest.raises(LoginNeeded):
        await door.sign()
    assert door.token.login_calls == 2


async def test_a_token_that_needs_no_login_is_used_without_asking() -> None:
    token = FakeToken()
    token.login_required = False
    person = FakePerson()
    assert await Door(person, token).sign() == b"signed data"
    assert person.shown == []


async def test_a_dialog_of_before_serves_no_module_that_was_loaded_anew() -> None:
    person = FakePerson([RIGHT, RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    before = asyncio.ensure_future(door.sign())
    await until(lambda: person.open)
    old = door.token
    door.token = door.signer.token = FakeToken()
    anew = asyncio.ensure_future(door.sign())
    with pytest.raises(TokenError, match="loaded anew: try again"):
        await before
    person.hold.set()
    assert await anew == b"signed data"
    assert (old.login_calls, door.token.login_calls) == (0, 1)
    assert person.open == 0


async def test_a_pin_pad_is_pointed_at() -> None:
    person = FakePerson()
    door = Door(person, FakeToken(pin_pad=True))
    assert await door.sign() == b"signed data"
    assert "on the reader" in person.noticed[0].message
    assert door.token.login_calls == 1


async def test_who_cancels_the_note_about_the_pin_pad_refuses_who_waits() -> None:
    """C_Login cannot be called back: it is no second one that serves who comes later."""
    person = FakePerson(agrees=False)
    token = FakeToken(pin_pad=True)
    token.hold = asyncio.Event()
    door = Door(person, token)
    with pytest.raises(Cancelled, match="“work” was not wanted at the reader"):
        await door.sign()
    person.agrees = True
    waiting = asyncio.ensure_future(door.sign())
    await until(lambda: len(person.noticed) > 1)
    token.hold.set()
    assert await waiting == b"signed data"
    assert token.login_calls == 1


async def test_a_hidden_note_about_the_pin_pad_changes_nothing() -> None:
    token = FakeToken(pin_pad=True)
    token.hold = asyncio.Event()
    person = FakePerson()
    person.hides = True
    door = Door(person, token)
    waiting = asyncio.ensure_future(door.sign())
    await until(lambda: person.noticed)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    token.hold.set()
    assert await waiting == b"signed data"


EACH_TIME = replace(KEY, always_authenticate=True)


def door_each_time(prompter: Prompter, timeout: float = 60.0) -> Door:
    """Return a gate whose key wants its PIN for each use."""
    door = Door(prompter, timeout=timeout)
    door.signer = FakeSigner(EACH_TIME, door.token)
    return door


async def test_one_dialog_serves_the_login_and_the_use_that_it_was_for() -> None:
    person = FakePerson([RIGHT, b"111111", RIGHT])
    door = door_each_time(person)
    assert await door.sign(request(EACH_TIME)) == b"signed data"
    assert [text.message for text in person.shown] == ["PIN for the token “work”"]
    assert "This key wants its PIN for each use." in person.shown[0].description
    assert await door.sign(request(EACH_TIME)) == b"signed data"
    assert door.signer.pins == [RIGHT, b"111111", RIGHT]
    assert door.token.login_calls == 1


async def test_the_dialog_of_a_use_does_not_read_like_a_refused_pin() -> None:
    """The second one after a login by the keyring, or by a PIN typed for another program."""
    person = FakePerson([RIGHT])
    store = FakeStore(RIGHT)
    door = Door(person, store=store)
    door.signer = FakeSigner(EACH_TIME, door.token)
    assert await door.sign(request(EACH_TIME)) == b"signed data"
    [text] = person.shown
    assert text.message == "PIN to use the key “ssh” of “work” once"
    assert "This key wants its PIN for each use." in text.description
    assert "ssh ← git wants to log in as alice" in text.description
    assert text.warning == ""


async def test_who_waited_with_another_program_is_asked_for_its_own_use() -> None:
    person = FakePerson([RIGHT, RIGHT])
    person.hold = asyncio.Event()
    door = door_each_time(person)
    first = asyncio.ensure_future(door.sign(request(EACH_TIME)))
    second = asyncio.ensure_future(door.sign(request(EACH_TIME, program="scp")))
    await until(lambda: person.shown)
    person.hold.set()
    assert {await first, await second} == {b"signed data"}
    assert len(person.shown) == 2
    assert "scp" in person.shown[1].description
    assert "“ssh” of “work” once" in person.shown[1].message


async def test_without_a_prompter_a_pin_from_the_terminal_serves_login_and_use() -> None:
    door = door_each_time(Nobody())
    waiting = asyncio.ensure_future(door.sign(request(EACH_TIME)))
    other = asyncio.ensure_future(door.sign(request(EACH_TIME, program="scp")))
    await until(lambda: door.gate.wants_pin(TOKEN))
    shown = door.gate.wants_pin(TOKEN)
    assert shown is not None
    await door.gate.unlock(TOKEN, bytearray(RIGHT), shown=shown)
    assert await waiting == b"signed data"
    pins = door.signer.pins
    assert pins == [RIGHT]
    await until(lambda: door.gate.wants_pin(TOKEN))  # the other one, which was not shown
    assert door.token.login_calls == 1
    with pytest.raises(PinIncorrect):
        await door.gate.unlock(TOKEN, bytearray(b"111111"), shown=door.gate.wants_pin(TOKEN))
    assert not other.done()
    await door.gate.unlock(TOKEN, bytearray(RIGHT), shown=door.gate.wants_pin(TOKEN))
    assert await other == b"signed data"
    with pytest.raises(Refused, match="has gone"):
        await door.gate.unlock(TOKEN, bytearray(RIGHT), shown=shown)
    assert door.token.login_calls == 1


async def test_a_use_that_waits_for_a_terminal_waits_no_longer_than_it_should() -> None:
    door = door_each_time(Nobody(), timeout=0.01)
    door.token.logged_in = True
    with pytest.raises(TimedOut, match="run `hsmagent unlock work`"):
        await door.sign(request(EACH_TIME))
    assert door.gate.wants_pin(TOKEN) is None


async def test_a_locked_screen_refuses_a_use_that_waits_for_a_terminal() -> None:
    door = door_each_time(Nobody())
    door.token.logged_in = True
    waiting = asyncio.ensure_future(door.sign(request(EACH_TIME)))
    await until(lambda: door.gate.wants_pin(TOKEN))
    door.gate.close("the screen is locked")
    with pytest.raises(Refused, match="screen is locked"):
        await waiting


async def test_before_the_pin_of_a_use_the_tries_are_looked_at() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    key = replace(KEY, always_authenticate=True)
    door.signer = FakeSigner(key, door.token)
    door.token.logged_in = True
    door.token.used_elsewhere = 2
    assert await door.sign(request(key)) == b"signed data"
    assert len(person.confirmed) == 1
    door.token.used_elsewhere = 1
    with pytest.raises(PinLocked, match="unblock it"):
        await door.sign(request(key))


async def test_tries_used_up_under_the_dialog_of_a_use_want_a_second_question() -> None:
    person = FakePerson([RIGHT, RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    key = replace(KEY, always_authenticate=True)
    door.signer = FakeSigner(key, door.token)
    door.token.logged_in = True
    signing = asyncio.ensure_future(door.sign(request(key)))
    await until(lambda: person.shown)
    door.token.used_elsewhere = 2
    person.hold.set()
    assert await signing == b"signed data"
    assert len(person.confirmed) == 1
    assert door.signer.pins == [RIGHT]


async def test_that_a_key_wants_its_pin_each_time_may_show_only_after_the_login() -> None:
    person = FakePerson([RIGHT])
    door = door_each_time(person)
    door.token.shows = (EACH_TIME,)
    assert await door.sign(request(KEY)) == b"signed data"
    assert door.signer.pins == [RIGHT]
    assert len(person.shown) == 1


# -- policy ----------------------------------------------------------------------------------


async def test_what_the_configuration_does_not_allow_is_refused_and_recorded() -> None:
    entry = KeyConfig("", allow=frozenset([PurposeKind.MAIL]))
    person = FakePerson([RIGHT])
    door = Door(person, entries=(entry,))
    with pytest.raises(Refused, match=r"does not allow .* to be used for ssh"):
        await door.sign()
    assert door.log[0][0] == "refused"
    assert person.shown == []


@pytest.mark.parametrize(
    ("entries", "questions"),
    [
        ((), 2),
        ((KeyConfig(""),), 2),
        ((KeyConfig("", confirm="forwarded"),), 2),
        ((KeyConfig("", allow=frozenset(PurposeKind)),), 0),
    ],
)
async def test_a_tokens_key_signs_unknown_data_only_after_a_question(
    entries: tuple[KeyConfig, ...], questions: int
) -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=entries)
    unknown = request(kind=PurposeKind.UNKNOWN)
    for _ in range(3):  # the first time a PIN is typed for it
        assert await door.sign(unknown) == b"signed data"
    assert len(person.confirmed) == questions
    person.agrees = False
    await door.sign()
    if questions:
        with pytest.raises(Cancelled):
            await door.sign(unknown)


def test_the_same_key_elsewhere_has_a_policy_of_its_own() -> None:
    work = KeyConfig("work", confirm="always")

    def named(key: Key, entry: KeyConfig) -> bool:
        return key.token is not None and key.token.label == entry.match and key.label == "ssh"

    policy = Policy([work], named, lambda: 0.0)
    backup = replace(KEY, token=replace(TOKEN, label="backup"))
    upstream = replace(KEY, token=None)
    for _ in range(2):
        for other in (backup, upstream, replace(KEY, label="other")):
            assert policy.decide(request(other)).verdict is Verdict.ALLOW
        assert policy.decide(request(KEY)).verdict is Verdict.CONFIRM
    for number in range(2 * CACHED):
        policy.entry(replace(KEY, spki=number.to_bytes(4, "big")))
    assert len(policy._by_key) <= CACHED


async def test_a_software_key_signs_what_it_is_given() -> None:
    door = Door(Nobody())
    door.signer = FakeSigner(SOFTWARE_KEY, None)
    assert await door.sign(request(SOFTWARE_KEY, kind=PurposeKind.UNKNOWN)) == b"signed data"


def test_an_agent_for_programs_asks_for_unknown_data_over_a_hop_only() -> None:
    policy = Policy((), lambda _key, _entry: True, lambda: 0.0, unknown="forwarded")
    unknown = request(kind=PurposeKind.UNKNOWN)
    assert policy.decide(unknown).verdict is Verdict.ALLOW
    beyond = request(kind=PurposeKind.UNKNOWN, forwarded=True)
    assert policy.decide(beyond).verdict is Verdict.CONFIRM


async def test_confirm_always_asks_each_time_but_a_typed_pin_is_a_yes() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=(KeyConfig("", confirm="always"),))
    await door.sign()
    assert person.confirmed == []
    await door.sign()
    assert len(person.confirmed) == 1
    person.agrees = False
    with pytest.raises(Cancelled):
        await door.sign()


async def test_a_pin_confirms_only_the_request_it_was_typed_for() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person, entries=(KeyConfig("", confirm="always"),))
    waiting = [asyncio.ensure_future(door.sign()) for _ in range(3)]
    await until(lambda: person.shown)
    person.hold.set()
    await asyncio.gather(*waiting)
    assert len(person.confirmed) == 2


async def test_a_pin_confirms_no_request_that_was_not_shown() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person, entries=(KeyConfig("", confirm="always"),))
    shown = asyncio.ensure_future(door.sign())
    await until(lambda: person.shown)
    hidden = asyncio.ensure_future(door.sign(request(program="other")))
    await asyncio.sleep(0)
    shown.cancel()
    await asyncio.gather(shown, return_exceptions=True)
    person.hold.set()
    assert await hidden == b"signed data"
    assert "other" in person.confirmed[0].description


async def test_confirm_forwarded_asks_only_over_a_hop() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=(KeyConfig("", confirm="forwarded"),))
    await door.sign()
    await door.sign()
    assert person.confirmed == []
    await door.sign(request(forwarded=True))
    assert "(forwarded)" in person.confirmed[0].description


async def test_remember_holds_for_program_and_destination_and_a_while() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=(KeyConfig("", confirm="remember", remember=300.0),))
    await door.sign()  # the PIN was typed for it
    await door.sign()
    assert person.confirmed == []
    await door.sign(request(host="other.example.org"))
    await door.sign(request(program="scp"))
    assert len(person.confirmed) == 2
    door.now = 300.0
    await door.sign()
    assert len(person.confirmed) == 3
    door.gate.forget()
    await door.sign()
    assert len(person.confirmed) == 4


async def test_remember_holds_for_the_purpose_and_hop_that_was_shown() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=(KeyConfig("", confirm="remember"),))
    await door.sign()
    await door.sign(request(forwarded=True))
    await door.sign(request(summary="log in as root"))
    await door.sign(request(kind=PurposeKind.SSHSIG))
    other_card = replace(KEY, token=replace(TOKEN, serial="2"))
    await door.sign(request(other_card))
    assert len(person.confirmed) == 4
    for wish in (request(), request(forwarded=True), request(summary="log in as root")):
        await door.sign(wish)
    assert len(person.confirmed) == 4


async def test_a_yes_to_unknown_data_is_not_remembered() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=(KeyConfig("", confirm="remember"),))
    for asked in range(3):
        await door.sign(request(kind=PurposeKind.UNKNOWN))
        assert len(person.confirmed) == asked


async def test_an_ssh_add_c_constraint_confirms_a_software_key() -> None:
    person = FakePerson()
    door = Door(person)
    door.signer = FakeSigner(SOFTWARE_KEY, None)
    assert await door.sign(request(SOFTWARE_KEY, confirm=True)) == b"signed data"
    assert len(person.confirmed) == 1
    assert await door.sign(request(SOFTWARE_KEY)) == b"signed data"
    assert len(person.confirmed) == 1


async def test_no_prompter_means_no_confirmation() -> None:
    door = Door(Nobody())
    door.signer = FakeSigner(SOFTWARE_KEY, None)
    with pytest.raises(Unavailable):
        await door.sign(request(SOFTWARE_KEY, confirm=True))


# -- the screen is locked --------------------------------------------------------------------


async def test_nothing_is_asked_while_the_screen_is_locked() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    door.gate.close("the screen is locked")
    with pytest.raises(Refused, match="the screen is locked"):
        await door.sign()
    door.gate.open()
    assert await door.sign() == b"signed data"


async def test_locking_the_screen_closes_every_dialog() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person)
    soft = Door(person)
    soft.signer = FakeSigner(SOFTWARE_KEY, None)
    waiting = asyncio.ensure_future(door.sign())
    confirming = asyncio.ensure_future(soft.sign(request(SOFTWARE_KEY, confirm=True)))
    await until(lambda: person.shown and person.confirmed)
    door.gate.close("the screen is locked")
    soft.gate.close("the screen is locked")
    results = await asyncio.gather(waiting, confirming, return_exceptions=True)
    assert [type(result) for result in results] == [Refused, Refused]
    await until(lambda: person.open == 0)


async def test_a_question_taken_back_says_why_whatever_came_since() -> None:
    person = FakePerson()
    person.hold = asyncio.Event()
    door = Door(person)
    door.signer = FakeSigner(SOFTWARE_KEY, None)
    confirming = asyncio.ensure_future(door.sign(request(SOFTWARE_KEY, confirm=True)))
    await until(lambda: person.confirmed)
    door.gate.close("the screen is locked")
    door.gate.open()
    with pytest.raises(Refused, match="the screen is locked"):
        await confirming


async def test_faults_of_the_token_are_told_and_recorded() -> None:
    token = FakeToken()
    token.fault = TokenError("the token failed: CKR_DEVICE_ERROR", 0x30)
    door = Door(FakePerson([RIGHT]), token)
    with pytest.raises(TokenError, match="CKR_DEVICE_ERROR"):
        await door.sign()
    assert door.log == [("failed", "the token failed: CKR_DEVICE_ERROR")]


async def test_no_pin_reaches_the_log() -> None:
    door = Door(FakePerson([b"271828", b"314159"]))
    with pytest.raises((Cancelled, PinIncorrect)):
        await door.sign()
    assert "271828" not in repr(door.log)
