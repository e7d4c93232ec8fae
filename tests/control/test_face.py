"""The face socket: who is served, what is shown and used, with the real daemon and a real token."""

import hashlib
import os
import signal
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from hsmagent.errors import Refused, UsageError
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.token.check import Checker
from tests.daemon.conftest import Start, furnished, module_config, start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.face import FaceClient, program
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

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


@pytest.fixture
def agent(start: Start, furnished: SoftHsm) -> AgentProcess:
    every = ("pkcs11-message", "pkcs11-digest", "pkcs11-decrypt")
    allowed = entry("rsa", *every) + entry("ec", "ssh", *every)
    agent = start(module_config(furnished, ENABLED + allowed))
    assert agent.unlock(PIN).returncode == 0
    return agent


def key_of(kind: KeyType, spki: bytes) -> Key:
    return Key(spki, kind, 2048 if kind is KeyType.RSA else 256)


@pytest.mark.parametrize("scheme", sorted(set(Scheme) - {Scheme.RSA_PKCS1_SHA1, Scheme.ED25519}))
def test_a_message_is_signed(agent: AgentProcess, connect: Connect, scheme: Scheme) -> None:
    face = connect(agent)
    label, kind = ("ec", KeyType.EC) if "ecdsa" in scheme else ("rsa", KeyType.RSA)
    spki = face.keys()[label]
    answer = face.call("sign_message", key=spki, scheme=scheme, message=b"a message")
    digest = hashlib.new(scheme.hash_name, b"a message").digest()
    assert Checker(key_of(kind, spki)).holds(scheme, digest, b64decode(answer["signature"]))


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


def test_everything_else_wants_to_know_who_asks(agent: AgentProcess) -> None:
    with closing(FaceClient(agent.face_socket)) as face:
        for operation in ("tokens", "changed", "sign_message"):
            with pytest.raises(UsageError, match="for whom"):
                face.call(operation, message=b"", scheme="ecdsa-sha256", key=b"")
        face.client(None)
        spki = face.keys()["ec"]
        with pytest.raises(Refused, match="no program"):
            face.call("sign_message", message=b"", scheme="ecdsa-sha256", key=spki)
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
    assert "hung up on a client" in agent.logged()


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
