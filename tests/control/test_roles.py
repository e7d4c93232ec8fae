"""Each role has a socket of its own: what one serves, another refuses. With the real daemon."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hsmagent.control.client import CONTROL, FACE, MAIL, Daemon
from hsmagent.control.values import to_base64
from hsmagent.errors import ProtocolError, TokenGone, Unavailable, UsageError
from hsmagent.mail.cms import der, oids
from tests.parts.agent.daemon import AgentProcess

OPERATIONS = {
    CONTROL: (
        *("status", "keys", "pubkey", "log", "unlock", "lock", "refresh", "forget_pin"),
        *("let_go", "take_back"),
    ),
    MAIL: ("keys", "sign_attributes", "unwrap"),
    FACE: (
        *("client", "tokens", "changed", "missed"),
        *("sign_message", "sign_digest", "decrypt", "derive"),
    ),
}

TYPE = der.sequence(der.oid(oids.ID_CONTENT_TYPE), der.set_of(der.oid(oids.ID_DATA)))
DIGEST = der.sequence(der.oid(oids.ID_MESSAGE_DIGEST), der.set_of(der.octets(bytes(32))))
# The last of the SET, for its length; and it ends as an OpenPGP signature of version 4 does.
OPENPGP = der.sequence(der.oid("1.2.3"), der.set_of(der.octets(bytes(40) + b"\x04\xff\0\0\0\x06")))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    config = '[[module]]\npath = "/nonexistent.so"\n[pkcs11]\nenabled = true\n'
    agent = AgentProcess(tmp_path_factory.mktemp("a"), config)
    agent.start()
    yield agent
    agent.stop()


@pytest.mark.parametrize("role", OPERATIONS)
@pytest.mark.parametrize(
    "operation", sorted({name for each in OPERATIONS.values() for name in each})
)
def test_an_operation_of_one_role_is_refused_on_the_socket_of_another(
    agent: AgentProcess, role: str, operation: str
) -> None:
    with closing(Daemon(str(agent.runtime), 20, role)) as daemon:
        try:
            daemon.call(operation)
        except UsageError as error:
            unknown = "knows no operation" in str(error)
        except TokenGone:
            unknown = False
        else:
            unknown = False
    assert unknown is (operation not in OPERATIONS[role])


def test_a_key_that_is_gone_is_told_as_that(agent: AgentProcess) -> None:
    attributes = to_base64(der.set_of(TYPE, DIGEST))
    with closing(Daemon(str(agent.runtime), 20, MAIL)) as daemon, pytest.raises(TokenGone):
        daemon.call("sign_attributes", attributes=attributes, scheme="ed25519", key="AAAA")


@pytest.mark.parametrize(
    "data",
    [
        der.set_of(b"I owe Mallory 1000 EUR."),
        b"\x31\x80I owe Mallory 1000 EUR.\r\n\0\0",
        der.set_of(TYPE, DIGEST, OPENPGP),
    ],
)
def test_the_mail_socket_signs_nothing_but_a_mails_attributes(
    agent: AgentProcess, data: bytes
) -> None:
    with (
        closing(Daemon(str(agent.runtime), 20, MAIL)) as daemon,
        pytest.raises(UsageError, match="not the signed attributes"),
    ):
        daemon.call("sign_attributes", attributes=to_base64(data), scheme="ed25519", key="AAAA")


def test_no_daemon_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"mail\.sock"):
        Daemon(str(tmp_path), role=MAIL)


@pytest.mark.parametrize("answer", [b"nonsense", b"[]", b"{}", b'{"error": "x"}', b'{"error": {}}'])
def test_an_answer_that_is_none_is_no_traceback(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(tmp_path / "control.sock"))
        odd.listen()
        with closing(Daemon(str(tmp_path), 20)) as daemon:
            connection, _ = odd.accept()
            with connection:
                connection.sendall(len(answer).to_bytes(4, "big") + answer)
                with pytest.raises(ProtocolError):
                    daemon.call("status")
                assert json.loads(connection.recv(100)[4:]) == {"op": "status"}
