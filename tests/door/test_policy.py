"""What a token's key does only once a person has agreed, and for how long a yes holds."""

from dataclasses import replace

import pytest

from hsmagent.config.file import KeyConfig
from hsmagent.door.policy import Policy, Verdict
from hsmagent.errors import Cancelled
from hsmagent.model import Destination, Doubt, Process, Purpose, PurposeKind, Request
from tests.door.doubles import RIGHT, SOFTWARE_KEY, FakePerson, request
from tests.door.test_gate import Door
from tests.parts.values import KEY, PEER

ALLOW, CONFIRM, DENY = Verdict.ALLOW, Verdict.CONFIRM, Verdict.DENY
CERTIFIED = replace(KEY, certificates=(b"der",))


def policy(*entries: KeyConfig, unknown: str = "always") -> Policy:
    return Policy(entries, lambda _key, _entry: True, lambda: 0.0, unknown)


def allowing(*words: PurposeKind) -> KeyConfig:
    return KeyConfig("", allow=frozenset(words))


def doubtful(subject: str = "host SHA256:x", kind: PurposeKind = PurposeKind.SSH) -> Request:
    doubt = Doubt(PurposeKind.UNKNOWN, subject)
    return replace(request(), purpose=Purpose(kind, "log in as alice", doubt))


@pytest.mark.parametrize("kind", [PurposeKind.UNKNOWN, PurposeKind.SSH_CERT])
def test_what_wants_a_word_is_asked_about_each_time(kind: PurposeKind) -> None:
    asked = request(kind=kind)
    rules = policy()
    assert rules.decide(asked).verdict is CONFIRM
    rules.confirmed(asked)
    assert rules.decide(asked).verdict is CONFIRM
    assert policy(allowing(kind)).decide(asked).verdict is ALLOW
    assert policy(allowing(PurposeKind.SSH)).decide(asked).verdict is DENY
    assert policy().decide(request(SOFTWARE_KEY, kind=kind)).verdict is ALLOW


def test_a_doubtful_login_is_asked_about_unless_anything_is_allowed() -> None:
    both = (PurposeKind.SSH, PurposeKind.UNKNOWN)
    assert policy().decide(doubtful()).verdict is CONFIRM
    assert policy(allowing(PurposeKind.SSH)).decide(doubtful()).verdict is CONFIRM
    assert policy(allowing(*both)).decide(doubtful()).verdict is ALLOW


def test_a_yes_holds_for_its_subject_until_the_login_ends() -> None:
    rules = policy()
    rules.confirmed(doubtful())
    assert rules.decide(doubtful()).verdict is ALLOW
    assert rules.decide(doubtful("host SHA256:y")).verdict is CONFIRM
    other = replace(KEY, spki=b"other")
    assert rules.decide(replace(doubtful(), key=other)).verdict is CONFIRM
    assert KEY.token is not None
    rules.login_ended(replace(KEY.token, serial="of another"))
    assert rules.decide(doubtful()).verdict is ALLOW
    rules.login_ended(KEY.token)
    assert rules.decide(doubtful()).verdict is CONFIRM
    rules.confirmed(doubtful())
    rules.forget()
    assert rules.decide(doubtful()).verdict is CONFIRM


def test_what_no_word_frees_is_always_asked_about() -> None:
    sudo = replace(request(), purpose=Purpose(PurposeKind.UNKNOWN, "sudo on host", Doubt()))
    rules = policy(allowing(*PurposeKind))
    for _ in range(2):
        assert rules.decide(sudo).verdict is CONFIRM
        rules.confirmed(sudo)


def test_a_key_with_an_x509_certificate_is_asked_about_once_per_host_and_user() -> None:
    rules = policy()
    here, beyond = request(CERTIFIED), request(CERTIFIED, forwarded=True)
    assert rules.decide(here).verdict is ALLOW
    assert rules.decide(beyond).verdict is CONFIRM
    rules.confirmed(beyond)
    assert rules.decide(beyond).verdict is ALLOW
    root = request(CERTIFIED, forwarded=True, summary="log in as root")
    elsewhere = request(CERTIFIED, forwarded=True, host="other.example.org")
    same_name = replace(
        beyond, destination=Destination("git.example.org", b"other", forwarded=True)
    )
    for other in (root, elsewhere, same_name):
        assert rules.decide(other).verdict is CONFIRM
    assert rules.decide(request(KEY, forwarded=True)).verdict is ALLOW
    assert policy(KeyConfig("")).decide(beyond).verdict is CONFIRM
    assert policy(allowing(PurposeKind.SSH)).decide(beyond).verdict is ALLOW
    assert policy(unknown="forwarded").decide(beyond).verdict is CONFIRM


def test_an_agent_for_programs_heeds_doubts_over_a_hop_only() -> None:
    rules = policy(unknown="forwarded")
    assert rules.decide(doubtful()).verdict is ALLOW
    hop = Destination("somewhere beyond host", forwarded=True)
    assert rules.decide(replace(doubtful(), destination=hop)).verdict is CONFIRM


@pytest.mark.parametrize(
    ("program", "to", "holds"),
    [
        ("ssh", Destination("host", b"key"), True),
        ("ssh", Destination("host", b"key", forwarded=True), False),
        ("ssh", Destination("an unknown host", forwarded=True), False),
        ("ssh", None, False),
        ("ssh-add", None, True),
    ],
)
def test_a_yes_holds_for_a_program_but_an_ssh_that_relays(
    program: str, to: Destination | None, *, holds: bool
) -> None:
    rules = policy(KeyConfig("", confirm="remember"))

    def asked(pid: int) -> Request:
        process = Process(pid, program, f"/usr/bin/{program}", start=pid, identity="1:2")
        return replace(request(), peer=replace(PEER, process=process), destination=to)

    rules.confirmed(asked(7))
    assert rules.decide(asked(7)).verdict is ALLOW
    assert (rules.decide(asked(8)).verdict is ALLOW) is holds


async def test_the_gate_asks_and_forgets_with_the_login() -> None:
    person = FakePerson([RIGHT, RIGHT])
    door = Door(person)
    await door.sign()  # a PIN is typed, for another request
    for _ in range(2):
        await door.sign(doubtful())
    assert len(person.confirmed) == 1
    door.token.logged_in = False
    await door.sign()
    person.agrees = False
    with pytest.raises(Cancelled):
        await door.sign(doubtful())


async def test_a_pin_typed_for_a_doubtful_request_is_a_yes() -> None:
    person = FakePerson([RIGHT])
    door = Door(person)
    await door.sign(doubtful())
    await door.sign(doubtful())
    assert person.confirmed == []
