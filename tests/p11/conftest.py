"""A token with keys and certificates, the daemon over it, and `hsmagent pkcs11` beside that."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.daemon.conftest import module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.pkcs11 import FREELY, FaceProcess
from tests.parts.mail.people import root
from tests.parts.mail.pki import Person
from tests.parts.token.p11_rpc import RpcClient
from tests.parts.token.softhsm import PIN, SoftHsm

ADDRESS = "alice@example.org"
KINDS = {"rsa": "01", "p256": "02"}
PURPOSES = (
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
)


@dataclass(frozen=True, slots=True)
class Holder:
    """A token "work" with an RSA and a P-256 key, their certificates and the CA's, and files."""

    token: SoftHsm
    people: dict[str, Person]
    folder: Path

    @property
    def ca(self) -> str:
        """Return the CA's certificate, as a file."""
        return str(self.folder / "ca.pem")

    def certificate(self, kind: str) -> str:
        """Return a person's certificate, as a file."""
        return str(self.folder / f"{kind}.pem")


def _pkcs8(person: Person) -> bytes:
    der: bytes = person.private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return der


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.fixture(scope="session")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Holder:
    """Make the token; tests leave it as it is."""
    return make_holder(tmp_path_factory.mktemp("holder"), dict.fromkeys(KINDS, ADDRESS))


def make_holder(
    folder: Path, addresses: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> Holder:
    """Make a token with these kinds of key, and certificates for their addresses.

    A key is called by its kind, unless there are labels for the kinds.
    """
    folder.mkdir(exist_ok=True)
    token = SoftHsm.create(folder / "hsm")
    token.init_token("work")
    (folder / "ca.pem").write_bytes(root().pem)
    (folder / "ca.der").write_bytes(root().der)
    token.write("work", "cert", folder / "ca.der", "09", "CA")
    people = {kind: person(kind, f"Alice {kind}", told) for kind, told in addresses.items()}
    for kind, who in people.items():
        number, label = KINDS[kind], (labels or {}).get(kind, kind)
        who.write(folder, kind)
        (folder / f"{kind}.der").write_bytes(who.der)
        (folder / f"{kind}.pem").write_bytes(who.pem)
        if kind == "rsa":
            token.import_key("work", folder / "rsa.key", number, label)
        else:  # softhsm2-util makes EC keys that must not derive
            (folder / "key.der").write_bytes(_pkcs8(who))
            uses = ("--usage-sign", "--usage-derive")
            token.write("work", "privkey", folder / "key.der", number, label, *uses)
        token.write("work", "cert", folder / f"{kind}.der", number, label)
    return Holder(token, people, folder)


def person(kind: str, name: str, address: str) -> Person:
    """Make a person whose certificate is for mail, and for both ends of TLS."""
    names = x509.SubjectAlternativeName([x509.RFC822Name(address), x509.DNSName("localhost")])
    return root().issue(kind, name, purposes=PURPOSES, more=[names], uses=_usage())


StartFace = Callable[..., FaceProcess]


@pytest.fixture(scope="session")
def _start_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartFace]:
    yield from starting(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def start_face(tmp_path: Path) -> Iterator[StartFace]:
    """Start daemons with a face each; the first argument is the configuration."""
    yield from starting(tmp_path)


def starting(folder: Path) -> Iterator[StartFace]:
    running: list[FaceProcess] = []

    def begin(config: str, **environment: str) -> FaceProcess:
        agent = AgentProcess(folder / f"h{len(running)}", config, environment)
        face = FaceProcess(agent)
        running.append(face)
        agent.start()
        face.start()
        return face

    yield begin
    for face in running:
        face.stop()
        face.agent.stop()


@pytest.fixture(scope="session")
def shared_face(_start_for_all: StartFace, holder: Holder) -> FaceProcess:
    """Start a face whose keys do everything unasked, for all tests that leave it as it is."""
    return _start_for_all(FREELY + module_config(holder.token))


@pytest.fixture
def face(shared_face: FaceProcess) -> FaceProcess:
    """Return that face, unlocked."""
    unlocked = shared_face.agent.unlock(PIN)
    assert unlocked.returncode == 0, unlocked.stderr
    return shared_face


Connect = Callable[..., RpcClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to a face as programs do, C_Initialize included; hang up at the end."""
    made: list[RpcClient] = []

    def begin(face: FaceProcess, **how: Any) -> RpcClient:
        client = RpcClient(face.socket, **how)
        made.append(client)
        return client.initialize()

    yield begin
    for client in made:
        client.close()
