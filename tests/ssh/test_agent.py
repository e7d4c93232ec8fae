"""The agent frame by frame."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import HsmAgentError
from hsmagent.model import PurposeKind
from hsmagent.ssh import certificates, keys, messages, signature, wire
from hsmagent.ssh.agent import Connection
from hsmagent.ssh.identities import Choice, Identity, list_of
from hsmagent.ssh.messages import Number
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.signer import RawSigner
from hsmagent.ssh.wire import Reader
from tests.parts.agent.reply import reply_of
from tests.parts.agent.ssh_agent import PEER, OpenDoor, Parts, token_signer
from tests.parts.token import softhsm
from tests.ssh import builders, vectors

FAILURE, SUCCESS = b"\x05", b"\x06"
EXTENSION_FAILURE = b"\x1c"
LIST = b"\x0b"
MODULE = softhsm.MODULE
MODULE_REAL = str(Path(MODULE).resolve())

A, B = builders.ed25519_key(), builders.ed25519_key()
PRIVATE = builders.ed25519_key()
BLOB = builders.blob_of(PRIVATE)
RSA = rsa.generate_private_key(65537, 2048)


def parts(*private: object, options: AgentOptions | None = None) -> Parts:
    return Parts([token_signer(each) for each in private], options)  # type: ignore[arg-type]


def connect(scene: Parts) -> Connection:
    return scene.agent.connection(lambda: PEER)


async def ask(connection: Connection, frame: bytes) -> bytes:
    return await reply_of(connection, frame)


def listed(connection: Connection) -> list[tuple[bytes, str]]:
    reply = connection.answer(bytearray(LIST))
    assert isinstance(reply, bytes)
    answer = messages.decode(reply)
    assert isinstance(answer, messages.IdentitiesAnswer)
    return list(answer.identities)


def smartcard(provider: str, pin: bytes = b"1234", more: bytes = b"") -> bytes:
    number = 26 if more else 20
    return bytes((number,)) + wire.text(provider) + wire.string(pin) + more


def lock(passphrase: bytes, number: int = Number.SSH_AGENTC_LOCK) -> bytes:
    return bytes((number,)) + wire.string(passphrase)


def unlock(passphrase: bytes) -> bytes:
    return lock(passphrase, Number.SSH_AGENTC_UNLOCK)


async def signature_of(connection: Connection, blob: bytes, data: bytes, flags: int = 0) -> str:
    """Return the algorithm of a signature that verifies, or "" for a failure."""
    reply = messages.decode(await ask(connection, builders.sign_request(blob, data, flags)))
    if not isinstance(reply, messages.SignResponse):
        return ""
    assert signature.verifies(certificates.public_key(blob), reply.signature, data)
    return signature.decode(reply.signature)[0]


# -- lists and signatures --------------------------------------------------------------------


def test_no_token_present_is_an_empty_list_and_never_a_failure() -> None:
    assert connect(parts()).answer(bytearray(LIST)) == b"\x0c\0\0\0\0"


def test_a_list_needs_no_waiting_and_is_kept_until_something_changes() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    first = connection.answer(bytearray(LIST))
    assert connect(scene).answer(LIST) is first
    bound = connect(scene)
    bound.answer(builders.bind_request(builders.binding(A, b"1")))
    assert bound.answer(LIST) is first, "no key is for certain destinations"
    scene.signers.clear()
    assert connection.answer(LIST) is first
    scene.agent.changed()
    assert listed(connection) == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [(0, "ssh-rsa"), (2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256")],
)
async def test_rsa_flags(flags: int, name: str) -> None:
    scene = parts(RSA)
    assert await signature_of(connect(scene), builders.blob_of(RSA), b"data", flags) == name


async def test_a_certificate_blob_is_signed_with_the_plain_algorithm_name() -> None:
    scene = Parts()
    connection = connect(scene)
    for during in ("add cert ed25519", "add cert ecdsa", "add cert rsa"):
        assert await ask(connection, vectors.message(during)) == SUCCESS
    for blob, _ in listed(connection):
        assert keys.CERTIFICATE in keys.type_name(blob)
        name = await signature_of(connection, blob, b"data", 2)
        assert keys.CERTIFICATE not in name


class BlobSigner:
    """Signs as a FIDO key does: its algorithm's blob goes on behind the signature."""

    blob = wire.text("sk-ssh-ed25519@openssh.com") + wire.string(bytes(64)) + b"\x05\0\0\0\x2a"

    def __init__(self) -> None:
        self.key = keys.describe(A.public_key(), label="fido")
        self.asked: list[tuple[bytes, int]] = []

    async def sign(self, data: bytes, flags: int, pin: bytearray | None = None) -> bytes:
        self.asked.append((data, flags))
        return self.blob


async def test_a_signer_may_give_a_blob_of_its_own_through_the_same_door() -> None:
    scene, signer, name = parts(PRIVATE), BlobSigner(), b"sk"
    scene.agent.identities.add([Identity(name, "fido", signer)])
    connection = connect(scene)
    reply = messages.decode(await ask(connection, builders.sign_request(name, b"data", 4)))
    assert reply == messages.SignResponse(BlobSigner.blob)
    assert signer.asked == [(b"data", 4)]
    assert [request.key for request in scene.door.requests] == [signer.key]
    scene.door.refuse = lambda _: True
    assert await ask(connection, builders.sign_request(name, b"data")) == FAILURE
    assert len(signer.asked) == 1


async def test_an_unknown_key_is_a_failure() -> None:
    scene = parts(PRIVATE)
    assert await signature_of(connect(scene), builders.blob_of(A), b"data") == ""
    assert scene.door.requests == []


async def test_the_door_may_refuse() -> None:
    scene = parts(PRIVATE)
    scene.door.refuse = lambda _: True
    assert await signature_of(connect(scene), BLOB, b"data") == ""


async def test_a_request_says_who_for_what_and_where() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    session = bytes(range(128, 160))
    await ask(connection, builders.bind_request(builders.binding(A, session)))
    data = builders.userauth(session, BLOB, host_key=builders.blob_of(A))
    assert scene.described == []
    assert await signature_of(connection, BLOB, data)
    assert await signature_of(connection, BLOB, data)
    request = scene.door.requests[0]
    assert (request.peer.uid, request.peer.chain) == (PEER.uid, PEER.chain)
    assert request.key is scene.signers[0].key
    assert (request.purpose.kind, request.purpose.summary) == (
        PurposeKind.SSH,
        "log in as alice",
    )
    assert request.destination is not None
    assert request.destination.host == "host.example.org"
    assert request.destination.host_key == builders.blob_of(A)
    assert not request.destination.forwarded
    assert not request.confirm
    assert scene.described == [builders.blob_of(A)], "looked up once"


async def test_a_forwarded_request_says_so() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    await ask(connection, builders.bind_request(builders.binding(A, b"1", forwarding=True)))
    assert await signature_of(connection, BLOB, b"data")
    await ask(connection, builders.bind_request(builders.binding(B, b"2")))
    assert await signature_of(connection, BLOB, builders.userauth(b"2", BLOB))
    first, second = (request.destination for request in scene.door.requests)
    assert first is not None
    assert second is not None
    assert (first.host, first.forwarded) == ("somewhere beyond host.example.org", True)
    assert (second.host, second.forwarded) == ("host.example.org", True)
    assert second.host_key == builders.blob_of(B)


@pytest.mark.parametrize("data", [builders.userauth(b"3", BLOB), b"data"])
async def test_a_host_is_not_named_for_what_is_good_elsewhere(data: bytes) -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    await ask(connection, builders.bind_request(builders.binding(A, b"1", forwarding=True)))
    await ask(connection, builders.bind_request(builders.binding(A, b"2")))
    assert await signature_of(connection, BLOB, data)
    destination = scene.door.requests[0].destination
    assert destination is not None
    assert (destination.host, destination.forwarded) == ("somewhere beyond host.example.org", True)


async def test_a_binding_that_we_cannot_verify_counts_as_forwarded() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    security_key = wire.text("sk-ssh-ed25519@openssh.com") + wire.string(bytes(32))
    contents = builders.binding(A, b"1", forwarding=True, host_key=security_key)
    assert await ask(connection, builders.bind_request(contents)) == EXTENSION_FAILURE
    assert await signature_of(connection, BLOB, builders.userauth(b"2", BLOB))
    named = builders.userauth(b"2", BLOB, host_key=builders.blob_of(A))
    assert await signature_of(connection, BLOB, named)
    await ask(connection, builders.bind_request(builders.binding(B, b"2")))
    assert await signature_of(connection, BLOB, builders.userauth(b"2", BLOB))
    found = [request.destination for request in scene.door.requests]
    assert [(each.host, each.forwarded) for each in found if each is not None] == [
        ("an unknown host", True),
        ("host.example.org", True),
        ("host.example.org", True),
    ]


async def test_without_a_binding_the_destination_is_unknown() -> None:
    scene = parts(PRIVATE)
    assert await signature_of(connect(scene), BLOB, builders.userauth(b"2", BLOB))
    assert scene.door.requests[0].destination is None


async def test_a_token_key_never_signs_what_is_good_as_a_mail() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    for data in (b"\x31\x03abc", b"\x30\x00", b"Content-Type: text/plain\r\n\r\nPay!\r\n"):
        assert await signature_of(connection, BLOB, data) == ""
    assert scene.door.requests == []
    assert await signature_of(connection, BLOB, b"\x31\x03abcd")
    soft = builders.ed25519_key()
    await ask(connection, builders.add_request(soft))
    assert await signature_of(connection, builders.blob_of(soft), b"\x31\x03abc")
    odd = b"X: \x01\r\nContent-Type: text/plain\r\n\r\nPay!\r\n"
    assert await signature_of(connection, BLOB, odd)
    assert scene.door.requests[-1].purpose.kind is PurposeKind.UNKNOWN, "the door asks"


# -- software keys ---------------------------------------------------------------------------


async def test_keys_are_added_listed_and_removed() -> None:
    scene = Parts()
    connection = connect(scene)
    assert await ask(connection, builders.add_request(PRIVATE, "me")) == SUCCESS
    assert listed(connection) == [(BLOB, "me")]
    remove = bytes((18,)) + wire.string(BLOB)
    assert await ask(connection, remove) == SUCCESS
    assert await ask(connection, remove) == FAILURE
    assert listed(connection) == []


async def test_a_frame_with_a_private_key_or_a_pin_is_wiped() -> None:
    scene = Parts()
    connection = connect(scene)
    for frame in (builders.add_request(PRIVATE), smartcard(MODULE), lock(b"x"), unlock(b"x")):
        buffer = bytearray(frame)
        await reply_of(connection, buffer)
        assert buffer == bytes(len(buffer))


@pytest.mark.parametrize("locked", [False, True])
async def test_what_was_read_of_a_frame_is_wiped_whatever_becomes_of_it(
    locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(Parts())
    await ask(connection, builders.bind_request(builders.binding(A, b"1")))
    if locked:
        await ask(connection, lock(b"secret"))
    read: list[messages.Request | messages.Reply] = []
    decode = messages.decode

    def decode_and_note(frame: bytearray) -> messages.Request | messages.Reply:
        read.append(decode(frame))
        return read[-1]

    monkeypatch.setattr(messages, "decode", decode_and_note)
    for request in (
        builders.add_request(PRIVATE),
        builders.add_request(PRIVATE, constraints=b"\x03"),
        smartcard(MODULE),
        smartcard(MODULE, more=b"\x03"),
        bytes((21,)) + wire.text(MODULE) + wire.string(b"1234"),
        lock(b"other"),
        unlock(b"wrong"),
    ):
        await ask(connection, request)
    for message in read:
        fields = [getattr(message, name) for name in message.__slots__]
        [secret] = [value for value in fields if isinstance(value, bytearray)]
        assert secret == bytes(len(secret)) != b""


async def test_a_comment_is_short_and_fit_for_a_terminal() -> None:
    connection = connect(Parts())
    nasty = "x\nssh-ed25519 AAAA evil\x1b]0;pwn\x07\u202e" + "y" * 261_000
    assert await ask(connection, builders.add_request(PRIVATE, nasty)) == SUCCESS
    [(_, comment)] = listed(connection)
    assert comment.isprintable()
    assert comment.startswith("x\N{REPLACEMENT CHARACTER}ssh-ed25519 AAAA evil")
    assert len(comment) == 1000


async def test_no_more_keys_are_added_than_a_client_can_list() -> None:
    hide = AgentOptions(choices=(Choice(lambda _: True, hide=True),))
    scene = with_provider(RSA, options=hide)
    connection = connect(scene)
    count = 0
    while (
        await ask(connection, builders.add_request(builders.ed25519_key(), "c" * 1000)) == SUCCESS
    ):
        count += 1
    assert count == 262_139 // (4 + 51 + 4 + 1000), "hidden keys count, too"
    assert await ask(connection, smartcard(MODULE)) == SUCCESS, "a small one still fits"
    while await ask(connection, builders.add_request(builders.ed25519_key(), "")) == SUCCESS:
        count += 1
    scene.agent.configure(AgentOptions())
    assert len(await ask(connection, LIST)) <= 262_144
    assert len(listed(connection)) == count + 1


async def test_a_provider_whose_keys_cannot_be_listed_any_more_is_not_kept() -> None:
    scene = with_provider(RSA)
    connection = connect(scene)
    while await ask(connection, builders.add_request(builders.ed25519_key(), "c" * 99)) == SUCCESS:
        pass
    assert await ask(connection, smartcard(MODULE)) == FAILURE
    assert scene.providers.added == []
    assert await ask(connection, b"\x13") == SUCCESS
    assert await ask(connection, smartcard(MODULE)) == SUCCESS


def test_a_list_leaves_out_what_a_client_could_not_read(caplog: pytest.LogCaptureFixture) -> None:
    signer = token_signer(PRIVATE)
    identities = [Identity(bytes(1000 - 12), "four", RawSigner(signer)) for _ in range(300)]
    reply = list_of(identities)
    assert reply[:5] == b"\x0c" + (262).to_bytes(4, "big")
    assert len(reply) == 5 + 262 * 1000
    assert "only the first 262 are in it" in caplog.text


async def test_adding_again_replaces_comment_and_constraints() -> None:
    scene = Parts()
    connection = connect(scene)
    await ask(connection, builders.add_request(PRIVATE, "one", b"\x02\x01\0\0\0\x0a"))
    assert await signature_of(connection, BLOB, b"data")
    assert scene.door.requests[-1].confirm
    await ask(connection, builders.add_request(PRIVATE, "two"))
    assert await signature_of(connection, BLOB, b"data")
    assert not scene.door.requests[-1].confirm
    scene.now += 11
    assert listed(connection) == [(BLOB, "two")]


async def test_lifetimes_own_and_default() -> None:
    scene = Parts(options=AgentOptions(lifetime=60))
    connection = connect(scene)
    await ask(connection, builders.add_request(PRIVATE))
    await ask(connection, builders.add_request(A, constraints=b"\x01\0\0\0\x0a"))
    scene.now += 10
    assert [blob for blob, _ in listed(connection)] == [BLOB]
    scene.now += 50
    assert listed(connection) == []


async def test_a_key_with_an_unknown_constraint_is_not_kept() -> None:
    connection = connect(Parts())
    unknown = builders.constraint("unknown@example.org", b"")
    assert await ask(connection, builders.add_request(PRIVATE, constraints=unknown)) == FAILURE
    assert listed(connection) == []


async def test_ssh_add_D_removes_what_was_added_and_nothing_else() -> None:  # noqa: N802
    scene = parts(PRIVATE)
    connection = connect(scene)
    await ask(connection, builders.add_request(A))
    scene.providers.known[MODULE_REAL] = (b"1234", [token_signer(B)])
    assert await ask(connection, smartcard(MODULE)) == SUCCESS
    assert len(listed(connection)) == 3
    assert await ask(connection, b"\x13") == SUCCESS
    assert await ask(connection, b"\x09") == SUCCESS
    assert [blob for blob, _ in listed(connection)] == [BLOB]
    assert await ask(connection, smartcard(MODULE)) == SUCCESS, "again after -D"
    assert len(listed(connection)) == 2


async def test_sigusr1_drops_software_keys() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    await ask(connection, builders.add_request(A))
    scene.agent.remove_all()
    assert [blob for blob, _ in listed(connection)] == [BLOB]


async def test_a_tokens_key_cannot_be_removed() -> None:
    connection = connect(parts(PRIVATE))
    assert await ask(connection, bytes((18,)) + wire.string(BLOB)) == FAILURE


# -- destinations ----------------------------------------------------------------------------


async def test_a_constrained_key_is_hidden_where_it_may_not_be_used() -> None:
    scene = Parts()
    here, there, broken = (connect(scene) for _ in range(3))
    target = builders.hop("a", [(builders.blob_of(A), False)])
    under = builders.restrict(builders.way(builders.hop(), target))
    await ask(here, builders.add_request(PRIVATE, constraints=under))
    await ask(here, builders.add_request(B, "free"))
    bind = builders.bind_request
    assert await ask(there, bind(builders.binding(B, b"2"))) == SUCCESS
    assert await ask(broken, bind(builders.binding(B, b"2", signed=b"x"))) == EXTENSION_FAILURE
    assert len(listed(here)) == 2
    for connection in (there, broken):
        assert [comment for _, comment in listed(connection)] == ["free"]
        assert await ask(connection, bytes((18,)) + wire.string(BLOB)) == FAILURE
        assert await ask(connection, builders.add_request(PRIVATE)) == FAILURE
    data = builders.userauth(b"2", BLOB)
    assert await signature_of(here, BLOB, data) == "", "listed, but not usable unbound"
    await ask(here, bind(builders.binding(A, b"2")))
    assert await signature_of(here, BLOB, data)
    assert await signature_of(here, BLOB, b"anything else") == ""


# -- lock ------------------------------------------------------------------------------------


async def test_locked_nothing_is_listed_or_signed_and_binds_are_taken() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    await ask(connection, lock(b"secret"))
    assert listed(connection) == []
    for frame in (
        builders.sign_request(BLOB, b"data"),
        builders.add_request(A),
        bytes((18,)) + wire.string(BLOB),
        b"\x13",
        smartcard(MODULE),
        bytes((21,)) + wire.text(MODULE) + wire.string(b""),
        lock(b"other"),
        b"\x1b" + wire.text("query"),
    ):
        assert await ask(connection, frame) == FAILURE
    assert await ask(connection, builders.bind_request(builders.binding(A, b"2"))) == SUCCESS
    before = scene.now
    assert await ask(connection, unlock(b"wrong")) == FAILURE
    assert scene.now > before, "answered late"
    assert await ask(connection, unlock(b"secret")) == SUCCESS
    assert len(listed(connection)) == 1
    assert await ask(connection, unlock(b"secret")) == FAILURE


async def test_a_signature_that_comes_when_the_agent_is_locked_is_not_given() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)

    def lock_meanwhile(_: object) -> bool:
        scene.agent.lock.lock(bytearray(b"x"))
        return False

    scene.door.refuse = lock_meanwhile
    assert await signature_of(connection, BLOB, b"data") == ""


# -- providers -------------------------------------------------------------------------------


def with_provider(*private: object, options: AgentOptions | None = None) -> Parts:
    scene = Parts(options=options)
    scene.providers.known[MODULE_REAL] = (
        b"1234",
        [token_signer(each) for each in private],  # type: ignore[arg-type]
    )
    return scene


async def test_a_provider_is_added_and_removed() -> None:
    scene = with_provider(PRIVATE)
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE)) == SUCCESS
    assert [blob for blob, _ in listed(connection)] == [BLOB]
    assert await signature_of(connection, BLOB, b"data")
    remove = bytes((21,)) + wire.text(MODULE) + wire.string(b"")
    assert await ask(connection, remove) == SUCCESS
    assert listed(connection) == []
    assert await ask(connection, remove) == FAILURE


async def test_a_wrong_pin_no_key_or_a_module_not_allowed_is_a_failure() -> None:
    scene = with_provider(PRIVATE)
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE, b"0000")) == FAILURE
    assert await ask(connection, smartcard("/etc/passwd")) == FAILURE
    assert await ask(connection, smartcard("pkcs11:token=x?pin-value=1234")) == FAILURE
    scene.providers.known[MODULE_REAL] = (b"1234", [])
    assert await ask(connection, smartcard(MODULE)) == FAILURE
    assert scene.providers.added == []


async def test_constraints_hold_on_a_providers_keys() -> None:
    scene = with_provider(PRIVATE)
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE, more=b"\x01\0\0\0\x3c\x02")) == SUCCESS
    assert await signature_of(connection, BLOB, b"data")
    assert scene.door.requests[-1].confirm
    scene.now += 60
    assert listed(connection) == []
    assert await ask(connection, smartcard(MODULE, more=b"\x03")) == FAILURE


async def test_associated_certificates_are_offered_beside_or_instead() -> None:
    scene = with_provider(PRIVATE)
    connection = connect(scene)
    blob = builders.certificate(A, PRIVATE, host=False)

    def under(certs_only: bytes) -> bytes:
        contents = certs_only + wire.string(wire.string(blob))
        return builders.constraint("associated-certs-v00@openssh.com", contents)

    assert await ask(connection, smartcard(MODULE, more=under(b"\0"))) == SUCCESS
    assert [each for each, _ in listed(connection)] == [BLOB, blob]
    assert await ask(connection, smartcard(MODULE, more=under(b"\1"))) == SUCCESS
    assert [each for each, _ in listed(connection)] == [blob]
    assert await signature_of(connection, blob, b"data") == "ssh-ed25519"


@pytest.mark.parametrize("sound", [True, False])
async def test_no_provider_over_a_connection_that_tried_to_bind(sound: bool) -> None:
    allowed = with_provider(PRIVATE, options=AgentOptions(allow_remote_pkcs11=True))
    for scene, expected in ((with_provider(PRIVATE), FAILURE), (allowed, SUCCESS)):
        connection = connect(scene)
        signed = None if sound else b"x"
        await ask(connection, builders.bind_request(builders.binding(A, b"1", signed=signed)))
        assert await ask(connection, smartcard(MODULE)) == expected
        assert await ask(connection, smartcard(MODULE, more=b"\x02")) == expected


async def test_a_provider_is_not_added_again_to_lift_a_constraint_from_where_it_bars() -> None:
    scene = with_provider(PRIVATE, options=AgentOptions(allow_remote_pkcs11=True))
    here, there = connect(scene), connect(scene)
    target = builders.hop("a", [(builders.blob_of(A), False)])
    under = builders.restrict(builders.way(builders.hop(), target))
    assert await ask(here, smartcard(MODULE, more=under)) == SUCCESS
    await ask(there, builders.bind_request(builders.binding(B, b"1", forwarding=True)))
    assert await ask(there, smartcard(MODULE, b"")) == FAILURE
    assert listed(there) == []
    assert [blob for blob, _ in listed(here)] == [BLOB]
    assert await ask(here, smartcard(MODULE)) == SUCCESS


async def test_a_provider_stays_when_it_is_added_again_without_its_token() -> None:
    scene = with_provider(PRIVATE)
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE)) == SUCCESS
    scene.providers.known[MODULE_REAL] = (b"1234", [])
    assert await ask(connection, smartcard(MODULE)) == FAILURE
    assert scene.providers.removed == []
    assert [blob for blob, _ in listed(connection)] == [BLOB]


def configured_and_added(options: AgentOptions | None = None) -> Parts:
    """Return an agent whose configured module is the one that `ssh-add -s` may name."""
    scene = parts(PRIVATE, options=options)
    scene.providers.known[MODULE_REAL] = (b"1234", list(scene.signers))
    return scene


REMOVALS = {
    "-d": bytes((18,)) + wire.string(BLOB),
    "-D": b"\x13",
    "-e": bytes((21,)) + wire.text(MODULE) + wire.string(b""),
}


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
async def test_a_forwarded_host_frees_no_configured_key(removal: bytes) -> None:
    scene = configured_and_added()
    here, there = connect(scene), connect(scene)
    assert await ask(here, smartcard(MODULE, more=b"\x02")) == SUCCESS
    await ask(there, builders.bind_request(builders.binding(B, b"1", forwarding=True)))
    assert await ask(there, removal) == SUCCESS
    assert await signature_of(there, BLOB, b"data")
    assert scene.door.requests[-1].confirm
    assert await ask(here, REMOVALS["-e"]) == SUCCESS, "the person may, here"
    assert await signature_of(here, BLOB, b"data")
    assert not scene.door.requests[-1].confirm
    assert await ask(here, REMOVALS["-e"]) == FAILURE


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
async def test_who_added_a_configured_key_under_constraints_may_lift_them(removal: bytes) -> None:
    scene = configured_and_added()
    here = connect(scene)
    assert await ask(here, smartcard(MODULE, more=b"\x02")) == SUCCESS
    assert await ask(here, removal) == SUCCESS
    assert await signature_of(here, BLOB, b"data")
    assert not scene.door.requests[-1].confirm


async def test_a_configured_key_for_some_destinations_stays_so_whatever_a_host_removes() -> None:
    scene = configured_and_added()
    here, there = connect(scene), connect(scene)
    target = builders.hop("a", [(builders.blob_of(A), False)])
    under = builders.restrict(builders.way(builders.hop(), target))
    assert await ask(here, smartcard(MODULE, more=under)) == SUCCESS
    await ask(there, builders.bind_request(builders.binding(B, b"1", forwarding=True)))
    for removal in REMOVALS.values():
        await ask(there, removal)
        assert listed(there) == []
        assert await signature_of(there, BLOB, builders.userauth(b"2", BLOB)) == ""


@pytest.mark.parametrize("more", [b"\x02", b"\x01\0\0\0\x3c"])
async def test_no_constraint_is_lifted_by_adding_again_over_a_forwarded_agent(more: bytes) -> None:
    scene = configured_and_added(AgentOptions(allow_remote_pkcs11=True))
    here, there = connect(scene), connect(scene)
    assert await ask(here, smartcard(MODULE, more=more)) == SUCCESS
    await ask(there, builders.bind_request(builders.binding(B, b"1", forwarding=True)))
    assert await ask(there, smartcard(MODULE)) == FAILURE
    scene.now += 61
    assert await ask(there, smartcard(MODULE)) == FAILURE
    assert await ask(here, smartcard(MODULE)) == SUCCESS


async def test_a_lifetime_that_is_over_leaves_a_configured_key_unusable() -> None:
    scene = configured_and_added()
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE, more=b"\x01\0\0\0\x3c")) == SUCCESS
    scene.now += 59
    assert await signature_of(connection, BLOB, b"data")
    scene.now += 1
    scene.agent.changed()
    assert listed(connection) == []
    assert await signature_of(connection, BLOB, b"data") == ""
    assert await ask(connection, REMOVALS["-e"]) == SUCCESS
    assert await signature_of(connection, BLOB, b"data")


async def test_a_certificate_is_no_second_name_without_constraints() -> None:
    certificate = builders.certificate(A, PRIVATE, host=False)
    scene = configured_and_added(AgentOptions(certificates=(certificates.parse(certificate),)))
    connection = connect(scene)
    assert await ask(connection, smartcard(MODULE, more=b"\x02\x01\0\0\0\x3c")) == SUCCESS
    assert [blob for blob, _ in listed(connection)] == [BLOB, certificate]
    assert await signature_of(connection, certificate, b"data")
    assert scene.door.requests[-1].confirm
    scene.now += 60
    assert listed(connection) == []


async def test_the_newest_provider_rules_over_a_key() -> None:
    scene = configured_and_added()
    scene.providers.known["pkcs11:token=work"] = (b"1234", list(scene.signers))
    connection = connect(scene)

    async def asks() -> bool:
        assert await signature_of(connection, BLOB, b"data")
        return scene.door.requests[-1].confirm

    assert await ask(connection, smartcard(MODULE, more=b"\x02")) == SUCCESS
    assert await ask(connection, smartcard("pkcs11:token=work")) == SUCCESS
    assert not await asks()
    uri = bytes((21,)) + wire.text("pkcs11:token=work") + wire.string(b"")
    assert await ask(connection, uri) == SUCCESS
    assert await asks()


async def test_at_most_16_providers() -> None:
    scene = Parts()
    connection = connect(scene)
    for number in range(17):
        uri = f"pkcs11:token=t{number}"
        scene.providers.known[uri] = (b"1234", [token_signer(PRIVATE)])
        expected = SUCCESS if number < 16 else FAILURE
        assert await ask(connection, smartcard(uri)) == expected


# -- the rest --------------------------------------------------------------------------------


async def test_query_names_the_extensions() -> None:
    reply = messages.decode(await ask(connect(Parts()), b"\x1b" + wire.text("query")))
    assert isinstance(reply, messages.ExtensionResponse)
    assert reply.name == "query"
    reader = Reader(reply.contents)
    assert (reader.text(), reader.text()) == ("query", "session-bind@openssh.com")
    reader.end()


@pytest.mark.parametrize(
    "frame",
    [
        b"\x1b" + wire.text("unknown@example.org"),
        b"\x1b",
        b"\xff",
        b"\x00",
        b"\x01",  # protocol 1
        b"\x05",
        b"\x0b\x00",
        b"\x0d",
        vectors.message("sshsig", "agent"),
        b"",
    ],
)
async def test_everything_else_is_a_failure(frame: bytes) -> None:
    assert await ask(connect(Parts()), frame) == FAILURE


@pytest.mark.parametrize("sent", [golden for golden in vectors.ALL if golden[0] != 12])
async def test_golden_messages_cut_short_never_raise(sent: bytes) -> None:
    scene = parts(PRIVATE)
    for length in range(1, len(sent), 5):
        reply = await ask(connect(scene), sent[:length])
        assert reply[0] in (5, 6, 12, 28, 29)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5))
def test_any_frames_are_answered(frames: list[bytes]) -> None:
    async def talk() -> None:
        connection = connect(parts(PRIVATE))
        for frame in frames:
            assert await ask(connection, frame)

    asyncio.run(talk())


async def test_listing_is_answered_while_a_signature_waits() -> None:
    scene = parts(PRIVATE)
    started, go = asyncio.Event(), asyncio.Event()

    class SlowDoor(OpenDoor):
        async def perform(self, *_: object) -> bytes:
            started.set()
            await go.wait()
            raise HsmAgentError("enough")

    scene.agent.door = SlowDoor()
    connection, other = connect(scene), connect(scene)
    task = asyncio.create_task(ask(connection, builders.sign_request(BLOB, b"data")))
    await started.wait()
    assert len(listed(other)) == 1
    go.set()
    assert await task == FAILURE


def test_configure_takes_choices_and_keeps_added_keys() -> None:
    scene = parts(PRIVATE)
    connection = connect(scene)
    connection.answer(bytearray(builders.add_request(A, "soft")))
    scene.agent.configure(AgentOptions(choices=(Choice(lambda key: key.label == "soft"),)))
    assert [comment for _, comment in listed(connection)] == ["soft", "ssh (work)"]
