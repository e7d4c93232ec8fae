"""A token with RSA and EC keys and their certificates, the daemon, and GnuPG."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.daemon.conftest import Start, module_config, start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.gnupg import Gnupg, gnupg
from tests.parts.mail.people import person, root
from tests.parts.mail.pki import Person
from tests.parts.token.softhsm import PIN, SoftHsm

__all__ = ["Start", "start"]

KINDS = {"rsa": "01", "p256": "02", "p384": "03"}


def allowing(*words: str, confirm: str = "never", match: str = "pkcs11:") -> str:
    allow = ", ".join(f'"{word}"' for word in words)
    said = f'confirm = "{confirm}"\n' if confirm else ""
    return f'[[key]]\nmatch = "{match}"\nallow = [{allow}]\n{said}'


ALLOWED = allowing("gnupg")


def address(kind: str) -> str:
    return f"{kind}@example.org"


def owner(kind: str) -> Person:
    return person(kind, address(kind), kind)


@pytest.fixture(scope="session")
def people_token(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """Make a token with a key and a certificate of each kind, and their CA's certificate."""
    return token_of(tmp_path_factory.mktemp("people"), KINDS)


def token_of(folder: Path, kinds: Mapping[str, str]) -> SoftHsm:
    """Make such a token. kinds: of keys, with the ids that they get."""
    token = SoftHsm.create(folder / "hsm")
    token.init_token("work")
    for kind, number in kinds.items():
        who = owner(kind)
        (folder / f"{kind}.der").write_bytes(who.der)
        (folder / f"{kind}.key").write_bytes(
            who.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        )
        # softhsm2-util makes EC keys that must not derive.
        uses = ("--usage-sign", "--usage-decrypt" if kind == "rsa" else "--usage-derive")
        token.write("work", "privkey", folder / f"{kind}.key", number, kind, *uses)
        token.write("work", "cert", folder / f"{kind}.der", number, kind)
    (folder / "ca.der").write_bytes(root().der)
    token.write("work", "cert", folder / "ca.der", "09", "ca")
    return token


@pytest.fixture(scope="module")
def agent(
    tmp_path_factory: pytest.TempPathFactory, people_token: SoftHsm
) -> Iterator[AgentProcess]:
    """Run the daemon with that token, unlocked."""
    home = tmp_path_factory.mktemp("a")
    agent = AgentProcess(home, module_config(people_token, ALLOWED))
    agent.start()
    assert agent.unlock(PIN).returncode == 0
    yield agent
    agent.stop()


@pytest.fixture(scope="module")
def learned(agent: AgentProcess) -> Iterator[Gnupg]:
    """GnuPG with a home of its own that has learned the keys."""
    with gnupg(agent.environment, root()) as made:
        made.learn()
        yield made


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(root().pem)
    return path
