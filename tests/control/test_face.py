"""The face socket: who is served, what is shown and used, with the real daemon and a real token."""

import hashlib
import os
import signal
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.control.face import DECRYPTIONS, Face, Family
from hsmagent.errors import ProtocolError, Refused, UsageError
from hsmagent.model import Key, KeyType, PurposeKind, Scheme, TokenStatus
from hsmagent.token.check import Checker
from tests.daemon.conftest import Start, furnished, module_config, start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.face import FaceClient, program
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until
from tests.parts.values import KEY, STATUS, TOKEN

__all__ = ["furnished", "start"]

ENABLED = "[pkcs11]\nenabled = true\n"


def entry(label: str, *allow: str, confirm: str = "never") -> str:
    words = ", ".join(f'"{word}"' for word in allow)
    said = f'confirm = "{confirm}"\n' if confirm else ""
    return f'[[key]]\nmatch = "pkcs11:object={label}"\nallow = [{words}]\n{said}'


Connect = Callable[..., FaceClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to face sockets until the test ends, for a program: this process, or another."""
    with ExitStack() as stack:

        def begin(agent: AgentProcess, of: socket.socket | None = None) -> FaceClient:
            client = stack.enter_context(closing(FaceClient(agent.face_socket)))
            if of is None:
                ours, theirs = socket.socketpair()
                stack.enter_context(theirs)
                with ours:
                    client.client(ours)
            else:
                client.client(of)
            return client

        yield begin


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, furnished: SoftHsm) -> Iterator[AgentProcess]:
    every = ("pkcs11-message", "pkcs11-digest", "pkcs11-decrypt")
    allowed = entry("rsa", *every) + entry("ec", "ssh", *every)
    config = module_config(furnished, ENABLED + allowed)
    agent = AgentProcess(tmp_path_factory.mktemp("a"), config)
    agent.start()
    assert agent.unlock(PIN).returncode == 0
    yield agent
    agent.stop()


def key_of(kind: KeyType, spki: bytes) -> Key:
    return Key(spki, kind, 2048 if kind is KeyType.RSA else 256)


SCHEMES = sorted(set(Scheme) - {Scheme.RSA_PKCS1_SHA1, Scheme.ED25519})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_message_is_signed(agent: AgentProcess, connect: Connect, scheme: Scheme) -> None:
    face = connect(agent)
    label, kind = ("ec", KeyType.EC) if "ecdsa" in scheme else ("rsa", KeyType.RSA)
    spki = face.keys()[label]
    answer = face.call("sign_message", key=spki, scheme=scheme, message=b"a message")
    digest = hashlib.new(scheme.hash_name, b"a message").digest()
    assert Checker(key_of(kind, spki)).holds(scheme, digest, b64decode(answer["signature"]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_digest_is_signed(agent: AgentProcess, connect: Connect, scheme: Scheme) -> None:
    face = connect(agent)
    label, kind = ("ec", KeyType.EC) if "ecdsa" in scheme else ("rsa", KeyType.RSA)
    spki = face.keys()[label]
    digest = hashlib.new(scheme.hash_name, b"a message").digest()
    answer = face.call("sign_digest", key=spki, scheme=scheme, digest=digest)
    assert Checker(key_of(kind, spki)).holds(scheme, digest, b64decode(answer["signature"]))
    for wrong in (digest[1:], digest + b"\0", b"", hashlib.sha1(b"").digest()):
        with pytest.raises(UsageError):
            face.call("sign_digest", key=spki, scheme=scheme, digest=wrong)


OAEP = {"padding": "oaep", "oaep_hash": "sha256", "mgf_hash": "sha1", "label": b"a label"}


@pytest.mark.parametrize("message", [b"", b"k", bytes(range(48)), b"m" * 190])
def test_what_was_encrypted_comes_out(
    agent: AgentProcess, connect: Connect, message: bytes
) -> None:
    face = connect(agent)
    spki = face.keys()["rsa"]
    public = load_der_public_key(spki)
    assert isinstance(public, rsa.RSAPublicKey)
    encrypted = public.encrypt(message, padding.PKCS1v15())
    plain = face.call("decrypt", key=spki, encrypted=encrypted, padding="pkcs1")["plain"]
    assert b64decode(plain) == message
    if len(message) <= 174:
        how = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA256(), b"a label")
        encrypted = public.encrypt(message, how)
        assert b64decode(face.call("decrypt", key=spki, encrypted=encrypted, **OAEP)["plain"]) == (
            message
        )


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha512"])
def test_a_secret_is_derived(agent: AgentProcess, connect: Connect, hash_name: str) -> None:
    face = connect(agent)
    spki = face.keys()["ec"]
    public = load_der_public_key(spki)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    ours = ec.generate_private_key(ec.SECP256R1())
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    known = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
    kdf = X963KDF(known[hash_name], 24, b"info")
    answer = face.call(
        "derive", key=spki, point=point, kdf_hash=hash_name, shared_info=b"info", length=24
    )
    assert b64decode(answer["secret"]) == kdf.derive(ours.exchange(ec.ECDH(), public))


@pytest.mark.parametrize(
    "wrong",
    [
        {"point": b"\4" + b"\1" * 64},
        {"point": b""},
        {"point": b"\0"},
        {"kdf_hash": "", "length": 32},
        {"kdf_hash": "md5"},
        {"length": 0},
        {"length": 1 << 20},
    ],
    ids=["off the curve", "no point", "infinity", "raw", "md5", "nothing", "too long"],
)
def test_no_raw_secret_and_no_odd_point(
    agent: AgentProcess, connect: Connect, wrong: dict[str, object]
) -> None:
    face = connect(agent)
    spki = face.keys()["ec"]
    right = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = right.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    fields = {"key": spki, "point": point, "kdf_hash": "sha256", "length": 32, **wrong}
    with pytest.raises((UsageError, ProtocolError)):
        face.call("derive", **fields)


def test_gnupg_gets_the_shared_x(start: Start, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished, entry("ec", "gnupg") + entry("rsa", "pkcs11-digest")))
    assert agent.unlock(PIN).returncode == 0
    ours = ec.generate_private_key(ec.SECP256R1())
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    with closing(FaceClient(agent.face_socket)) as face:
        face.client(None, "gnupg")
        [(label, spki)] = face.keys().items()
        public = load_der_public_key(spki)
        assert label == "ec"
        assert isinstance(public, ec.EllipticCurvePublicKey)
        secret = face.call("derive", key=spki, point=point, kdf_hash="")["secret"]
        assert b64decode(secret) == ours.exchange(ec.ECDH(), public)
        with pytest.raises(UsageError, match="hash"):
            face.call("sign_message", key=spki, scheme="ecdsa-sha256", message=b"")
    [used] = [line for line in agent.json("log")["entries"] if line["outcome"] == "used"]
    assert used["purpose"] == "gnupg"
    assert used["summary"] == "decrypt something for GnuPG, it does not say what"
    assert used["pid"] == os.getppid(), "it is for whoever started the process that asks"


def test_a_change_is_told_to_who_waits(start: Start, furnished: SoftHsm, connect: Connect) -> None:
    agent = start(module_config(furnished, ENABLED + entry("rsa", "pkcs11-digest")))
    face, other = connect(agent), connect(agent)
    face.call("changed")  # nothing was told yet
    assert list(face.keys()) == ["rsa"]
    face.send("changed")
    assert list(other.keys()) == ["rsa"], "nobody else waits"
    agent.configure(module_config(furnished, ENABLED + entry("ec", "pkcs11-digest")))
    agent.signal(signal.SIGHUP)
    assert face.answer() == {}
    assert list(face.keys()) == ["ec"]


@pytest.mark.parametrize("scheme", ["rsa-pkcs1-sha1", "ed25519", "rsa-x509", ""])
def test_other_schemes_are_refused(agent: AgentProcess, connect: Connect, scheme: str) -> None:
    face = connect(agent)
    spki = face.keys()["rsa"]
    with pytest.raises(UsageError):
        face.call("sign_message", key=spki, scheme=scheme, message=b"a message")


def test_only_what_allow_names_is_shown_or_used(agent: AgentProcess, connect: Connect) -> None:
    face = connect(agent)
    shown = face.call("tokens")["tokens"]
    assert [key["label"] for key in shown[0]["keys"]] == ["rsa", "ec"]
    every = ["pkcs11-decrypt", "pkcs11-digest", "pkcs11-message"]
    assert [key["allowed"] for key in shown[0]["keys"]] == [every, every]
    [hidden] = [key for key in agent.json("keys")["keys"] if key["label"] == "ed"]
    with pytest.raises(Refused, match="does not allow"):
        face.call("sign_message", key=hidden["spki"], scheme="ecdsa-sha256", message=b"x")


def test_nothing_is_served_that_nobody_enabled(start: Start, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished, entry("rsa", "pkcs11-message")))
    assert not agent.face_socket.exists()
    assert agent.mail_socket.exists()


def test_a_reload_opens_and_closes_the_socket(
    start: Start, furnished: SoftHsm, connect: Connect
) -> None:
    agent = start(module_config(furnished))
    agent.configure(module_config(furnished, ENABLED))
    agent.signal(signal.SIGHUP)
    until(agent.face_socket.exists)
    face = connect(agent)
    agent.configure(module_config(furnished))
    agent.signal(signal.SIGHUP)
    until(lambda: not agent.face_socket.exists())
    with pytest.raises((EOFError, OSError)):
        face.call("tokens")
    assert agent.hsmagent("status").returncode == 0


def test_a_family_that_is_not_enabled_is_refused(start: Start, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished, entry("rsa", "gnupg")))
    with closing(FaceClient(agent.face_socket)) as face, pytest.raises(Refused, match="enabled"):
        face.client(None)
    with closing(FaceClient(agent.face_socket)) as face:
        face.client(None, "gnupg")
        assert list(face.keys()) == ["rsa"]
        with pytest.raises(UsageError, match="by themselves"):
            face.call("missed", token="pkcs11:")


def test_nobody_is_told_that_a_token_is_away_which_is_here(
    agent: AgentProcess, connect: Connect
) -> None:
    face = connect(agent)
    [token] = face.call("tokens")["tokens"]
    with pytest.raises(UsageError, match="is here"):
        face.call("missed", token=token["uri"])
    with pytest.raises(UsageError, match="must begin with pkcs11:"):
        face.call("missed", token="work")


def test_everything_else_wants_to_know_who_asks(agent: AgentProcess) -> None:
    with closing(FaceClient(agent.face_socket)) as face:
        for operation in ("tokens", "changed", "missed", "sign_message"):
            with pytest.raises(UsageError, match="for whom"):
                face.call(operation, message=b"", scheme="ecdsa-sha256", key=b"")
        face.client(None)
        spki = face.keys()["ec"]
        with pytest.raises(Refused, match="no program"):
            face.call("sign_message", message=b"", scheme="ecdsa-sha256", key=spki)
        with pytest.raises(Refused, match="no program"):
            face.call("missed", token="pkcs11:")
        with pytest.raises(UsageError, match="already"):
            face.client(None)


@pytest.mark.parametrize("handed", ["a file", "another family's socket"])
def test_what_is_no_programs_socket_is_hung_up_on(agent: AgentProcess, handed: str) -> None:
    with (
        closing(FaceClient(agent.face_socket)) as face,
        Path(os.devnull).open() as file,
        socket.socket() as other,
    ):
        what = file if handed == "a file" else other
        with pytest.raises((EOFError, ConnectionError)):
            face.client(what)  # type: ignore[arg-type]
    until(lambda: "hung up on a client" in agent.logged())
    assert agent.hsmagent("status").returncode == 0
    assert "Traceback" not in agent.logged()


def test_the_connection_ends_with_the_program(
    agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    with program(tmp_path) as asks:
        face = connect(agent, asks.connection)
        face.call("tokens")
        asks.end()
        assert face.socket.recv(1) == b"", "the daemon hangs up by itself"


def test_descriptors_are_given_back(start: Start, furnished: SoftHsm, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "h", module_config(furnished, ENABLED), dumpable=True)
    agent.start()
    try:
        agent.json("keys")  # by then the worker runs
        before = agent.descriptors()
        for _ in range(20):
            with closing(FaceClient(agent.face_socket)) as face:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    face.client(ours)
                    face.call("tokens")
        until(lambda: agent.descriptors() <= before)
    finally:
        agent.stop()


def test_frames_may_come_byte_by_byte(agent: AgentProcess) -> None:
    with closing(FaceClient(agent.face_socket)) as face:
        body = b'{"op": "client", "for": "pkcs11"}'
        frame = len(body).to_bytes(4, "big") + body
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(face.socket, [frame[:1]], [ours.fileno()])
            for at in range(1, len(frame)):
                face.socket.sendall(frame[at : at + 1])
            assert face.answer() == {}
            spki = face.keys()["ec"]
            face.call("sign_message", message=b"", scheme="ecdsa-sha256", key=spki)


def test_many_descriptors_are_one_and_later_ones_none(
    start: Start, furnished: SoftHsm, tmp_path: Path
) -> None:
    """The kernel closes what nobody takes: a flood of descriptors fills no table of ours."""
    agent = AgentProcess(tmp_path / "h", module_config(furnished, ENABLED), dumpable=True)
    agent.start()
    body = b'{"op": "client", "for": "pkcs11"}'
    frame = len(body).to_bytes(4, "big") + body
    looks = b'\0\0\0\x10{"op": "tokens"}'
    try:
        agent.json("keys")  # by then the worker runs
        before = agent.descriptors()
        with ExitStack() as stack:
            face = stack.enter_context(closing(FaceClient(agent.face_socket)))
            pairs = [socket.socketpair() for _ in range(50)]
            for each in (sock for pair in pairs for sock in pair):
                stack.enter_context(each)
            ours = [pair[0].fileno() for pair in pairs]
            socket.send_fds(face.socket, [frame], ours)
            assert face.answer() == {}
            for _ in range(20):
                socket.send_fds(face.socket, [looks], ours)
                face.answer()
            until(lambda: agent.descriptors() - before <= 2)  # the connection, one program's
        until(lambda: agent.descriptors() <= before)
    finally:
        agent.stop()


def test_what_one_program_asks_for_is_counted(
    agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    with program(tmp_path) as asks:
        face = connect(agent, asks.connection)
        spki = face.keys()["ec"]
        wrong = {"key": spki, "encrypted": b"", "padding": "none"}
        for _ in range(DECRYPTIONS[0]):
            with pytest.raises(ProtocolError):
                face.call("decrypt", **wrong)
        with pytest.raises(Refused, match="short time"):
            face.call("decrypt", **wrong)
        face.call("sign_digest", key=spki, scheme="ecdsa-sha256", digest=bytes(32))
    with program(tmp_path) as another, pytest.raises(ProtocolError):
        connect(agent, another.connection).call("decrypt", **wrong)


def test_only_tokens_with_a_key_to_show_are_listed(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    token = SoftHsm.create(tmp_path / "hsm")
    for name in ("work", "other"):
        token.init_token(name)
    token.generate("work", "EC:prime256v1", "01", "ec")
    token.generate("other", "EC:prime256v1", "02", "unnamed")
    agent = start(module_config(token, ENABLED + entry("ec", "pkcs11-digest")))
    face = connect(agent)
    [shown] = face.call("tokens")["tokens"]
    assert (shown["name"], shown["present"], len(shown["keys"])) == ("work", True, 1)
    assert shown["certificates"] == []


async def test_a_token_that_is_away_stays_in_the_list() -> None:
    here = replace(STATUS, present=True, keys=(KEY,))
    hidden = replace(here, id=replace(TOKEN, serial="2"), keys=(replace(KEY, spki=b"hidden"),))
    now = [here, hidden]

    class OfNow:
        def statuses(self) -> list[TokenStatus]:
            return now

        def allowed(self, key: Key) -> frozenset[PurposeKind]:
            return frozenset(() if key.spki == b"hidden" else (PurposeKind.PKCS11_DIGEST,))

    face = Face(
        *(OfNow(), OfNow()),  # type: ignore[arg-type]
        serves=lambda: (),
        look=lambda: None,  # type: ignore[arg-type, return-value]
        missed=lambda *_: None,
        clock=lambda: 0.0,
    )
    assert [token["serial"] for token in face.shown(Family.PKCS11)] == [TOKEN.serial]
    now[:] = [replace(each, present=False, keys=()) for each in now]
    [away] = face.shown(Family.PKCS11)
    assert (away["serial"], away["present"], away["keys"]) == (TOKEN.serial, False, [])
    assert face.away(TOKEN.uri) == TOKEN
    assert face.away("pkcs11:token=of%20before").label == "of before"
    now[:] = [here]
    with pytest.raises(UsageError, match="is here"):
        face.away(TOKEN.uri)
