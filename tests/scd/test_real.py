"""A card beside ours: the real scdaemon's protocol, with a fake OpenPGP card behind it."""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsmagent.mail import keygrip
from hsmagent.scd.card import SERIAL
from hsmagent.scd.errors import Code
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.scd import Reply, Scd, scd
from tests.parts.mail import scdaemon
from tests.parts.mail.gnupg import CHECKOUT, gnupg
from tests.parts.mail.people import person, root
from tests.parts.until import until
from tests.scd.conftest import owner

DIGEST = hashlib.sha256(b"a message").digest()
INFO = "3031300d060960864801650304020105000420" + DIGEST.hex()
OURS = keygrip.of(owner("rsa").key)
PIN = b"123456"


class Beside:
    """The fake card's program, and what it took note of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = person("rsa", "card@example.org", "card")
        self.grip = keygrip.of(self.owner.key)
        der = self.owner.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.der").write_bytes(der)
        (folder / "grip").write_text(self.grip)
        self.program = folder / "scdaemon"
        self.program.write_text(
            f"#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} {scdaemon.__file__}"
            f' {folder} "$@"\n'
        )
        self.program.chmod(0o755)

    def noted(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def check(self, signature: bytes) -> None:
        public = self.owner.private.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        public.verify(signature, DIGEST, padding.PKCS1v15(), Prehashed(SHA256()))


@pytest.fixture
def beside() -> Iterator[Beside]:
    folder = Path(tempfile.mkdtemp(prefix="card-"))
    yield Beside(folder)
    shutil.rmtree(folder)


@pytest.fixture
def program(agent: AgentProcess, beside: Beside) -> Iterator[Scd]:
    with scd(agent.environment, "--scdaemon", str(beside.program), "--homedir", "/h") as running:
        running.client.answers["NEEDPIN"] = PIN
        yield running


def test_it_is_not_started_for_what_is_ours(program: Scd, beside: Beside) -> None:
    client = program.client
    for line in (
        *("SERIALNO --all", f"SERIALNO --demand={SERIAL}", "LEARN --force", "KEYINFO --list"),
        *(f"KEYINFO {OURS}", f"SETDATA {INFO}", f"PKSIGN --hash=sha256 {OURS}", "RESTART"),
        *("READKEY $SIGNKEYID", "GETATTR KEY-ATTR", "GETINFO version", f"READCERT {OURS}"),
    ):
        client.call(line)
    assert beside.noted("started") == []


def test_gnupg_2_2_signs_with_its_card(program: Scd, beside: Beside) -> None:
    client = program.client
    demanded = client.call(f"SERIALNO --demand={scdaemon.SERIAL}")
    assert demanded.status == [f"SERIALNO {scdaemon.SERIAL}"]
    assert client.call(f"SETDATA {INFO}") == Reply()
    beside.check(client.call("PKSIGN --hash=sha256 OPENPGP.1").data)
    assert beside.noted("pins") == [f"D {PIN.decode()}"]
    assert beside.noted("started") == ["--homedir /h --multi-server"]
    assert client.call("LEARN").status[1] == "APPTYPE OPENPGP"
    # Our keys work meanwhile, and are meant again after the end of that client.
    client.call(f"SETDATA {INFO}")
    assert client.call(f"PKSIGN --hash=sha256 HSMAGENT.{OURS}").error == 0
    client.call("RESTART")
    assert client.call("LEARN").status[1] == "APPTYPE hsmagent"
    assert beside.noted("started") == ["--homedir /h --multi-server"]
    assert beside.noted("ended") == [], "it has shown a card, and keeps its login"


def test_gnupg_2_4_signs_with_its_card(program: Scd, beside: Beside) -> None:
    client = program.client
    assert client.call("SERIALNO --all").status == [f"SERIALNO {SERIAL}"]
    told = f"KEYINFO {beside.grip} T {scdaemon.SERIAL} OPENPGP.1 sc"
    assert client.call(f"KEYINFO {beside.grip}").status == [told]
    client.call(f"SETDATA {INFO}")
    beside.check(client.call(f"PKSIGN --hash=sha256 {beside.grip}").data)
    other = program.more()
    other.call(f"SETDATA {INFO}")
    assert other.call(f"PKSIGN --hash=sha256 {OURS}").error == 0


def test_bare_serialno_prefers_a_card_that_is_there(program: Scd, beside: Beside) -> None:
    client = program.client
    assert client.call("SERIALNO").status == [f"SERIALNO {scdaemon.SERIAL}"]
    assert client.call("LEARN --force").status[1] == "APPTYPE OPENPGP"
    client.call("RESTART")
    (beside.folder / "empty").touch()
    assert client.call("SERIALNO").status == [f"SERIALNO {SERIAL}"]


def test_gpg_shows_a_card_that_is_there_else_ours(agent: AgentProcess, beside: Beside) -> None:
    with gnupg(agent.environment, root(), "--scdaemon", str(beside.program)) as made:
        assert scdaemon.SERIAL in made.run("gpg", "--card-status").decode()
        (beside.folder / "empty").touch()
        made.run("gpg-connect-agent", "SCD RESTART", "/bye")
        assert SERIAL in made.run("gpg", "--card-status").decode()
        assert not made.asked_by_pinentry


def test_gpg_agents_ssh_side_lists_a_card_in_sshcontrol(
    agent: AgentProcess, beside: Beside
) -> None:
    """Unasked it lists the keys of our card alone: the real scdaemon would have to be started."""
    with gnupg(agent.environment, root(), "--scdaemon", str(beside.program)) as made:
        with (made.home / "gpg-agent.conf").open("a") as configuration:
            configuration.write("enable-ssh-support\n")
        made.run("gpg", "--card-status")  # which makes the stub
        socket = made.run("gpgconf", "--list-dirs", "agent-ssh-socket").decode().strip()
        made.environment["SSH_AUTH_SOCK"] = socket
        assert made.try_("ssh-add", "-L").stdout.count(b"ssh-rsa") == 0
        (made.home / "sshcontrol").write_text(f"{beside.grip}\n")
        assert made.run("ssh-add", "-L").count(b"ssh-rsa") == 1


def test_without_a_card_it_is_ended_again(program: Scd, beside: Beside) -> None:
    """It would keep our tokens' reader for itself."""
    (beside.folder / "empty").touch()
    client = program.client
    assert client.call("SERIALNO").status == [f"SERIALNO {SERIAL}"]
    until(lambda: len(beside.noted("ended")) == 1)
    refused = client.call("SERIALNO openpgp")
    assert (refused.error, refused.text) == (Code.ENODEV, "No such device <SCD>")
    client.call(f"SETDATA {INFO}")
    assert client.call(f"PKSIGN --hash=sha256 {beside.grip}").error == Code.ENODEV
    until(lambda: len(beside.noted("ended")) == 3)


def test_its_card_works_without_our_daemon(tmp_path: Path, beside: Beside) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    nobody = AgentProcess(tmp_path).environment
    with scd(nobody, "--scdaemon", str(beside.program)) as running:
        client = running.client
        assert client.call("SERIALNO --all").status == [f"SERIALNO {scdaemon.SERIAL}"]
        assert client.call(f"KEYINFO {beside.grip}").error == 0
        client.call("RESTART")
        assert client.call("LEARN").status[1] == "APPTYPE OPENPGP"
        client.call("RESTART")
        (beside.folder / "empty").touch()
        assert client.call("LEARN").error == Code.NO_SCDAEMON
