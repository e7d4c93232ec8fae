"""`hsmagent setup --gnupg` and what the doctor says of it, with the real GnuPG."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from hsmagent.mail import keygrip
from hsmagent.scd.card import SERIAL
from tests.daemon.conftest import Start, module_config, start
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.mail.gnupg import CHECKOUT, SCD
from tests.parts.mail.people import root
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.scd.conftest import ALLOWED, KINDS, address, owner, people_token

__all__ = ["people_token", "start"]


class Session:
    """A person's session: the daemon, a GnuPG home, and the programs of ours side by side."""

    def __init__(self, agent: AgentProcess, folder: Path) -> None:
        self.agent = agent
        self.home = folder / "gnupg"
        self.conf = self.home / "gpg-agent.conf"
        self.program = folder / "hsmagent"
        self.program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hsmagent "$@"\n')
        self.scdaemon = folder / "hsmagent-scd"
        self.scdaemon.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{SCD}' \"$@\"\n")
        for program in (self.program, self.scdaemon):
            program.chmod(0o755)
        self.environment = {
            **agent.environment,
            "GNUPGHOME": str(self.home),
            "PYTHONPATH": str(CHECKOUT),
            "XDG_DATA_HOME": str(agent.home / "data"),
        }

    def run(self, *command: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            list(map(str, command)),
            env=self.environment,
            input=data,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def setup(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.run(*PROGRAM, "setup", "--yes", "--program", self.program, *words)

    def doctor(self) -> list[tuple[str, str]]:
        found = json.loads(self.run(*PROGRAM, "doctor", "--json").stdout)
        return [(f["sentence"], f["remedy"]) for f in found if f["check"] == "gnupg"]


@pytest.fixture
def session(start: Start, people_token: SoftHsm) -> Iterator[Session]:
    agent = start(ALLOWED + module_config(people_token))
    assert agent.unlock(PIN).returncode == 0
    folder = Path(tempfile.mkdtemp(prefix="setup-"))
    made = Session(agent, folder)
    yield made
    made.run("gpgconf", "--kill", "all")
    shutil.rmtree(folder)


def test_gnupg_is_set_up_learns_and_is_left_again(session: Session) -> None:
    [(sentence, remedy)] = session.doctor()
    assert "does not run hsmagent-scd" in sentence
    assert "setup --gnupg" in remedy
    done = session.setup("--gnupg")
    assert done.returncode == 0, done.stderr
    assert b"GnuPG has learned the keys" in done.stdout
    assert session.home.stat().st_mode & 0o777 == 0o700
    assert session.conf.read_text() == f"scdaemon-program {session.scdaemon}\n"
    listed = session.run("gpgsm", "--list-secret-keys").stdout
    assert listed.count(b"ID: 0x") == len(KINDS)
    # The root is the person's to trust.
    [(sentence, remedy)] = session.doctor()
    assert "does not trust the root" in sentence
    fingerprint = root().certificate.fingerprint(hashes.SHA1()).hex().upper()
    assert fingerprint in remedy
    assert session.run("sh", "-c", remedy).returncode == 0
    (session.home / "gpgsm.conf").write_text("disable-crl-checks\n")
    session.run("gpgconf", "--kill", "gpg-agent")
    assert session.doctor() == [("GnuPG is served, and knows its keys", "")]
    signed = session.run("gpgsm", "--sign", "-u", address("p256"), data=b"x")
    assert signed.returncode == 0, signed.stderr
    # A key that GnuPG knows as its own, and one that it has not learned.
    stubs = session.home / "private-keys-v1.d"
    first, second = (stubs / f"{keygrip.of(owner(kind).key)}.key" for kind in ("rsa", "p256"))
    other = first.read_bytes().replace(b"HSMAGENT", b"OTHERCAR")
    first.write_bytes(other.replace(SERIAL.encode(), b"D" * len(SERIAL)))
    second.unlink()
    assert {sentence for sentence, _ in session.doctor()} == {
        "GnuPG knows the key rsa as one of its own, or of another card",
        "GnuPG has not learned the key p256",
    }
    assert session.setup().returncode == 0
    assert session.conf.exists(), "later runs keep it"
    assert b"GnuPG has forgotten" in session.setup("--no-gnupg").stdout
    assert not session.conf.exists()
    assert list(stubs.iterdir()) == [first], "what GnuPG has of another card is not ours"
    assert session.setup("--gnupg").returncode == 0
    assert len(list(stubs.iterdir())) == len(KINDS)
    assert session.run(*PROGRAM, "setup", "--remove", "--yes").returncode == 0
    assert not session.conf.exists()
    assert list(stubs.iterdir()) == [first]


def test_what_is_missing_is_said(session: Session) -> None:
    session.agent.stop()
    done = session.setup("--gnupg")
    assert done.returncode == 0, done.stderr
    assert b"GnuPG has learned no key yet. `hsmagent doctor` says what" in done.stdout
    [(sentence, _)] = session.doctor()
    assert "GnuPG's keys cannot be looked at" in sentence


def test_another_scdaemon_stays(session: Session) -> None:
    session.home.mkdir(mode=0o700)
    mine = "default-cache-ttl 60\nscdaemon-program /usr/lib/other\n"
    session.conf.write_text(mine)
    done = session.setup("--gnupg")
    assert done.returncode == 1
    assert b"setup did not write it: its scdaemon-program" in done.stdout
    assert session.conf.read_text() == mine
    [(sentence, remedy)] = session.doctor()
    assert sentence.endswith("but /usr/lib/other")
    assert "take scdaemon-program out of" in remedy
    assert session.run(*PROGRAM, "setup", "--remove", "--yes").returncode == 0
    assert session.conf.read_text() == mine


def test_lines_around_ours_stay(session: Session) -> None:
    session.home.mkdir(mode=0o700)
    session.conf.write_text("default-cache-ttl 60\n")
    assert session.setup("--gnupg").returncode == 0
    assert session.conf.read_text().splitlines()[0] == "default-cache-ttl 60"
    assert session.run(*PROGRAM, "setup", "--remove", "--yes").returncode == 0
    assert session.conf.read_text() == "default-cache-ttl 60\n"
