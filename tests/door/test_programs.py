"""What PKCS#11 programs and GnuPG may do with a key: the table of docs/configuration.md."""

import asyncio
from dataclasses import replace

import pytest

from hsmagent.config.file import KeyConfig
from hsmagent.door.policy import Policy, Verdict
from hsmagent.errors import Cancelled, Refused
from hsmagent.model import PKCS11_PURPOSES, Process, Purpose, PurposeKind, Request, Scheme
from tests.door.doubles import RIGHT, FakePerson, FakeSigner, FakeStore, FakeToken
from tests.door.test_gate import Door, until
from tests.parts.values import KEY, PEER

ALLOW, CONFIRM, DENY = Verdict.ALLOW, Verdict.CONFIRM, Verdict.DENY
DIGEST, DECRYPT, GNUPG = PurposeKind.PKCS11_DIGEST, PurposeKind.PKCS11_DECRYPT, PurposeKind.GNUPG
KINDS = sorted(PKCS11_PURPOSES)
ONCE, EACH, NEVER = [CONFIRM, ALLOW], [CONFIRM, CONFIRM], [ALLOW, ALLOW]


def wish(
    kind: PurposeKind = DIGEST, program: str = "thunderbird", pid: int = 7, identity: str = "1:2"
) -> Request:
    process = Process(pid, program, f"/usr/bin/{program}", start=pid, identity=identity)
    return Request(KEY, Purpose(kind, "decrypt a message"), replace(PEER, process=process))


def policy(confirm: str, *allow: PurposeKind, anything: bool = False) -> Policy:
    entry = KeyConfig("", confirm=confirm, allow=None if anything else frozenset(allow))
    return Policy((entry,), lambda _key, _entry: True, lambda: 0.0)


def asked(rules: Policy, *requests: Request) -> list[Verdict]:
    """Return what is said to each, by a person who always agrees."""
    said = []
    for request in requests:
        said.append(rules.decide(request).verdict)
        if said[-1] is CONFIRM:
            rules.confirmed(request)
    return said


@pytest.mark.parametrize("confirm", ["", "remember", "forwarded", "always", "never"])
@pytest.mark.parametrize("kind", [*KINDS, GNUPG])
def test_nothing_is_done_with_a_key_whose_allow_does_not_name_it(
    confirm: str, kind: PurposeKind
) -> None:
    others = set(PurposeKind) - {kind}
    for rules in (policy(confirm, anything=True), policy(confirm, *others)):
        assert asked(rules, wish(kind)) == [DENY]
        assert kind not in rules.allowed(KEY)


@pytest.mark.parametrize(
    ("confirm", "said"),
    [("", ONCE), ("remember", ONCE), ("forwarded", ONCE), ("always", EACH), ("never", NEVER)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pkcs11_program_is_asked_about(
    kind: PurposeKind, confirm: str, said: list[Verdict]
) -> None:
    rules = policy(confirm, kind)
    assert rules.allowed(KEY) == {kind}
    assert asked(rules, wish(kind), wish(kind)) == said


@pytest.mark.parametrize(
    ("confirm", "said"),
    [("", EACH), ("forwarded", EACH), ("always", EACH), ("remember", ONCE), ("never", NEVER)],
)
def test_gnupg_is_asked_about_each_time_unless_the_entry_says_otherwise(
    confirm: str, said: list[Verdict]
) -> None:
    assert asked(policy(confirm, GNUPG), wish(GNUPG), wish(GNUPG)) == said


def test_a_yes_is_for_one_program_and_one_key() -> None:
    rules = policy("", *KINDS)
    assert asked(rules, wish(DECRYPT), wish(DIGEST), wish(DECRYPT, pid=8)) == [
        CONFIRM,
        ALLOW,
        ALLOW,
    ]
    assert asked(rules, wish(identity="1:3")) == [CONFIRM], "another file of that name"
    other = replace(wish(), key=replace(KEY, spki=b"another"))
    assert asked(rules, other) == [CONFIRM]
    nameless = wish(identity=""), wish(identity=""), wish(identity="", pid=8)
    assert asked(rules, *nameless) == [CONFIRM, ALLOW, CONFIRM], "by process, not by name"


@pytest.mark.parametrize("end", ["logout", "lock", "reload"])
def test_a_yes_ends(end: str) -> None:
    rules = policy("", DIGEST)
    assert asked(rules, wish(), wish()) == ONCE
    if end == "logout":
        assert KEY.token is not None
        rules.login_ended(KEY.token)
    elif end == "lock":
        rules.forget()
    else:
        rules = policy("", DIGEST)
    assert asked(rules, wish()) == [CONFIRM]


# -- through the gate --------------------------------------------------------------------------

OPEN = (KeyConfig("", allow=frozenset(PurposeKind)),)


async def test_a_pin_is_a_yes_for_the_request_that_was_shown_in_full_only() -> None:
    person = FakePerson([RIGHT])
    person.hold = asyncio.Event()
    door = Door(person, entries=OPEN)
    first = asyncio.ensure_future(door.sign(wish()))
    await until(lambda: person.shown)
    again = asyncio.ensure_future(door.sign(wish(DECRYPT)))
    other = asyncio.ensure_future(door.sign(wish(program="firefox", identity="1:3")))
    await asyncio.sleep(0)
    person.hold.set()
    await asyncio.gather(first, again, other)
    assert [text.description.splitlines()[0] for text in person.confirmed] == [
        "firefox ← git wants to decrypt a message"
    ]


async def test_one_question_serves_all_requests_that_its_yes_holds_for() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=OPEN)
    await door.sign()
    person.hold = asyncio.Event()
    handshakes = [asyncio.ensure_future(door.sign(wish())) for _ in range(5)]
    await until(lambda: person.confirmed)
    person.hold.set()
    await asyncio.gather(*handshakes)
    assert len(person.confirmed) == 1


async def test_a_no_is_no_yes_for_those_who_waited() -> None:
    person = FakePerson([RIGHT], agrees=False)
    door = Door(person, entries=OPEN)
    await door.sign()
    wishes = [asyncio.ensure_future(door.sign(wish())) for _ in range(2)]
    for said in await asyncio.gather(*wishes, return_exceptions=True):
        assert isinstance(said, Cancelled)


async def test_a_key_that_is_not_allowed_any_more_when_a_person_says_yes_stays_unused() -> None:
    person = FakePerson([RIGHT])
    door = Door(person, entries=OPEN)
    person.hold = asyncio.Event()
    waits = asyncio.ensure_future(door.sign(wish()))
    await until(lambda: person.shown)
    rules = Policy((KeyConfig("", allow=frozenset()),), lambda _key, _entry: True, lambda: 0.0)
    door.gate.configure(rules, 60.0)
    person.hold.set()
    with pytest.raises(Refused, match="does not allow"):
        await waits


async def test_a_yes_ends_with_a_login_that_was_ended_under_us() -> None:
    person = FakePerson([RIGHT, RIGHT])
    door = Door(person, entries=OPEN)
    await door.sign(wish())  # the PIN is the yes
    door.signer.loses_login = 1
    await door.sign(wish())
    assert len(person.shown) == 2
    door.signer.loses_login = 1
    person.pins = [RIGHT]
    person.hold = asyncio.Event()
    first = asyncio.ensure_future(door.sign())  # whose request the PIN is typed for
    await until(lambda: len(person.shown) == 3)
    second = asyncio.ensure_future(door.sign(wish()))
    await asyncio.sleep(0)
    person.hold.set()
    await asyncio.gather(first, second)
    assert len(person.confirmed) == 1


async def test_a_yes_ends_with_a_login_that_a_stored_pin_replaces() -> None:
    person, store = FakePerson([RIGHT]), FakeStore()
    door = Door(person, entries=OPEN, store=store)
    await door.sign(wish())
    store.pin = RIGHT
    door.signer.loses_login = 1
    await door.sign(wish())
    assert (len(store.given), len(person.shown), len(person.confirmed)) == (1, 1, 1)


@pytest.mark.parametrize(("confirm", "noticed"), [("", False), ("always", True), ("never", True)])
async def test_what_is_done_under_a_standing_yes_does_not_extend_the_login(
    confirm: str, *, noticed: bool
) -> None:
    token = FakeToken()
    door = Door(FakePerson([RIGHT]), token, (replace(OPEN[0], confirm=confirm),))
    quiet = FakeSigner(KEY, token)
    done: list[FakeSigner] = []

    async def perform() -> None:
        def by(signer: FakeSigner):  # type: ignore[no-untyped-def] # noqa: ANN202
            async def operation(pin: bytearray | None) -> bytes:
                done.append(signer)
                return await signer.sign(Scheme.ECDSA_SHA256, b"data", pin)

            return operation

        await door.gate.perform(wish(), by(door.signer), by(quiet))

    for _ in range(3):
        await perform()
    assert [signer is door.signer for signer in done] == [True, noticed, noticed]
