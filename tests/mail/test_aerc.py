"""Real aerc on a terminal, with contrib's settings: send signed and encrypted, verify, decrypt."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.mail import verify
from tests.parts.desktop.terminal import Terminal
from tests.parts.mail.people import (
    encrypted_by_openssl,
    home,
    judge,
    person,
    region,
    script,
    signed,
)
from tests.parts.until import until

CONTRIB = Path(__file__).parents[2] / "contrib/mail/aerc.conf"
SHIPPED = Path("/usr/share/aerc")
MESSAGE = (
    b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n"
    b"Date: Mon, 1 Jun 2026 10:00:00 +0000\nContent-Type: text/plain\n\nThe signed words\n"
)


def settings() -> dict[str, str]:
    """Return the parts of the file by the name of the one that each is for."""
    _, *parts = re.split(r"^# ---- (\w+\.conf).*\n", CONTRIB.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


class Aerc:
    """aerc as a person has it, with one mailbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = folder / "sent"
        programs = folder / "bin"
        programs.mkdir()
        script(programs, "hsmagent", "smime", "rsa")
        script(programs, "hsmagent-smime", "openssl_smime", "rsa")
        script(programs, "hsmagent-sendmail", "sendmail", "rsa")
        for name, text in {
            "real-sendmail": f"cat > '{folder}/draft'; mv '{folder}/draft' '{self.sent}'",
            "editor": "echo 'Hello from aerc' >> \"$1\"",
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        self._inbox = folder / "mail/INBOX"
        for name in ("cur", "new", "tmp"):
            (self._inbox / name).mkdir(parents=True)
        self._configure(folder / "config/aerc")
        self.environment = home(folder, HSMAGENT_TEST_SENDMAIL=f"{programs}/real-sendmail")
        self.environment |= {"EDITOR": f"{programs}/editor"}
        self.environment["PATH"] = f"{programs}:{self.environment['PATH']}"
        self._opened: list[Terminal] = []

    def _configure(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        ours = settings()
        account = f"[me]\nsource = maildir://{self.folder}/mail\nfrom = alice@example.org\n"
        account += "default = INBOX\n" + ours.pop("accounts.conf")
        (folder / "accounts.conf").write_text(account)
        (folder / "accounts.conf").chmod(0o600)
        for name, text in ours.items():
            (folder / name).write_text((SHIPPED / name).read_text() + text)

    def open(self, mail: bytes = MESSAGE) -> Terminal:
        """Start aerc with one message in its mailbox."""
        (self._inbox / "cur/1.host:2,S").write_bytes(mail)
        terminal = Terminal(["aerc"], self.environment)
        self._opened.append(terminal)
        terminal.wait_for_screen("Hi")
        return terminal

    def close(self) -> None:
        for terminal in self._opened:
            terminal.close()


@pytest.fixture
def aerc(tmp_path: Path) -> Iterator[Aerc]:
    it = Aerc(tmp_path)
    yield it
    it.close()


def compose(terminal: Terminal) -> None:
    """Write a message, up to where it is looked at before it is sent."""
    terminal.type(":compose -H 'To: bob@example.org' -H 'Subject: Ho'\n")
    terminal.wait_for("Send this email?")


def test_send_signed(aerc: Aerc) -> None:
    terminal = aerc.open()
    compose(terminal)
    terminal.type("y")
    until(aerc.sent.exists)
    found = verify.message(region(aerc.sent.read_bytes()), judge())
    assert found.report.ok, found.report.text()
    assert b"Hello from aerc" in aerc.sent.read_bytes()


def test_send_encrypted(aerc: Aerc, tmp_path: Path) -> None:
    certificate, _ = person("rsa", "bob@example.org").write(tmp_path, "bob")
    program = aerc.folder / "bin/hsmagent"
    terminal = aerc.open()
    subprocess.run([program, "contacts", "add", certificate], env=aerc.environment, check=True)
    compose(terminal)
    terminal.type("Xe")
    terminal.wait_for("X-HSMAgent")
    terminal.type("y")
    until(aerc.sent.exists)
    assert b"enveloped-data" in aerc.sent.read_bytes()
    assert b"Hello" not in aerc.sent.read_bytes()
    assert b"X-HSMAgent" not in aerc.sent.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [(b"", b"", "Good signature by Alice"), (b"signed words", b"altered words", "BAD")],
)
def test_verify(aerc: Aerc, old: bytes, new: bytes, says: str) -> None:
    mail = signed(MESSAGE, person("rsa"))
    terminal = aerc.open(mail.replace(old, new) if old else mail)
    terminal.type("Xv")
    terminal.wait_for_screen(says)


def test_decrypt(aerc: Aerc, tmp_path: Path) -> None:
    content = b"Content-Type: text/plain\n\nThe secret words\n\x1b]0;title\x07\n"
    encrypted = encrypted_by_openssl(content, person("rsa"), tmp_path)
    header = b"From: bob@example.org\nTo: alice@example.org\nSubject: Hi\n"
    header += b"Date: Mon, 1 Jun 2026 10:00:00 +0000\n"
    terminal = aerc.open(header + encrypted)
    terminal.type("\r")  # the encrypted part is shown
    terminal.wait_for("secret")
    terminal.type("Xd")
    terminal.wait_for_screen("The secret words")
    assert "\x1b]0;title" not in terminal.shown()
