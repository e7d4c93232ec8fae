"""Real neomutt and mutt on a terminal, with contrib's files: send signed, read, decrypt."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsmagent.mail import verify
from tests.parts.desktop.terminal import drive
from tests.parts.mail.people import (
    encrypted_by_openssl,
    home,
    judge,
    person,
    region,
    script,
    signed,
)

CONTRIB = Path(__file__).parents[2] / "contrib/mail"
MESSAGE = (
    b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n"
    b"Date: Mon, 1 Jun 2026 10:00:00 +0000\nContent-Type: text/plain\n\nThe signed words\n"
)


@dataclass
class Neomutt:
    program: str
    folder: Path
    environment: dict[str, str]

    def run(
        self,
        *arguments: str,
        answers: list[tuple[bytes, bytes]],
        done: Callable[[bytes], bool],
    ) -> bytes:
        command = [self.program, "-n", "-F", f"{self.folder}/rc", *arguments]
        return drive(command, self.environment, answers, done)

    def read(self, mail: bytes, *words: bytes) -> bytes:
        """Open the one message in a mailbox; done when all words show, and Enter was pressed."""
        inbox = self.folder / "inbox"
        inbox.write_bytes(b"From alice@example.org Mon Jun  1 10:00:00 2026\n" + mail + b"\n")
        answers = [(b"Hi", b"\n")]
        if b"pkcs7-mime" in mail:
            answers.append((b"passphrase", b"\n"))
        return self.run(
            "-f", str(inbox), answers=answers, done=lambda shown: all(w in shown for w in words)
        )


@pytest.fixture(params=["neomutt", "mutt"])
def neomutt(request: pytest.FixtureRequest, tmp_path: Path) -> Neomutt:
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs, "hsmagent-smime", "openssl_smime", "rsa")
    script(programs, "hsmagent-sendmail", "sendmail", "rsa")
    for name, text in {
        "real-sendmail": f"#!/bin/sh\ncd '{tmp_path}'; cat > draft; mv draft sent\n",
        "editor": "#!/bin/sh\necho 'Hello from neomutt' >> \"$1\"\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "rc").write_text(
        f"source {CONTRIB}/{request.param}rc\n"
        'set from = "alice@example.org"\n'
        f'set editor = "{programs}/editor"\n'
        f"set folder = {tmp_path}\nset spoolfile = {tmp_path}/inbox\nset tmpdir = {tmp_path}\n"
        'set record = ""\nset abort_unmodified = no\nset fast_reply = yes\nset wait_key = no\n'
    )
    environment = home(tmp_path, HSMAGENT_TEST_SENDMAIL=f"{programs}/real-sendmail")
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    return Neomutt(request.param, tmp_path, environment)


def test_send_signed(neomutt: Neomutt) -> None:
    sent = neomutt.folder / "sent"
    shown = neomutt.run(
        *("-s", "Subject", "bob@example.org", "-e", "set autoedit edit_headers"),
        answers=[(b"To:", b"y")],
        done=lambda _: sent.exists(),
    )
    assert sent.exists(), shown.decode(errors="replace")
    mail = sent.read_bytes()
    assert b"Hello from neomutt" in mail
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()
    assert report.sender == ("alice@example.org",)


def test_read_and_verify(neomutt: Neomutt) -> None:
    mail = signed(MESSAGE, person("rsa"))
    words = (b"The signed words", b"successfully verified", b"Good signature by Alice Example")
    shown = neomutt.read(mail, *words)
    for word in words:
        assert word in shown, shown.decode(errors="replace")


def test_changed_message_is_bad(neomutt: Neomutt) -> None:
    mail = signed(MESSAGE, person("rsa")).replace(b"signed words", b"altered words")
    shown = neomutt.read(mail, b"could NOT be verified")
    assert b"successfully verified" not in shown
    assert b"could NOT be verified" in shown


def test_decrypt(neomutt: Neomutt, tmp_path: Path) -> None:
    content = b"Content-Type: text/plain\n\nThe secret words\n"
    mail = b"From: bob@example.org\nTo: alice@example.org\nSubject: Hi\n"
    mail += encrypted_by_openssl(content, person("rsa"), tmp_path)
    shown = neomutt.read(mail, b"The secret words")
    assert b"The secret words" in shown, shown.decode(errors="replace")
