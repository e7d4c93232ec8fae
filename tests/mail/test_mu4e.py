"""mu4e's own view and compose mode, and so Gnus' code, with contrib/mail/mu4e.el."""

import subprocess
from pathlib import Path

import pytest

from hsmagent.mail import verify
from tests.parts.mail.people import (
    encrypted_by_openssl,
    home,
    judge,
    person,
    region,
    script,
    signed,
)

CONTRIB = Path(__file__).parents[2] / "contrib/mail/mu4e.el"
HEADER = (
    b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n"
    b"Date: Mon, 1 Jun 2026 10:00:00 +0000\nMIME-Version: 1.0\n"
)
MESSAGE = HEADER + b"Content-Type: text/plain\n\nThe signed words\n"
START = """
(setq user-mail-address "alice@example.org" message-confirm-send nil inhibit-message t
      mu4e-trash-folder "/INBOX" mu4e-drafts-folder "/INBOX"
      mu4e-sent-folder "/INBOX" mu4e-refile-folder "/INBOX")
(set-frame-width nil 100)
(mu4e t)
(while (not (ignore-errors (mu4e-root-maildir))) (accept-process-output nil 0.1))
"""
VIEW = """
(mu4e-search "subject:Hi")
(while (not (mu4e-message-at-point t)) (accept-process-output nil 0.1))
(mu4e-headers-view-message)
(while (not (get-buffer gnus-article-buffer)) (accept-process-output nil 0.1))
(with-current-buffer gnus-article-buffer (princ (buffer-string)))
"""
SEND = """
(with-current-buffer (generate-new-buffer "draft")
  (insert "From: alice@example.org\\nTo: bob@example.org\\nSubject: Ho\\n"
          mail-header-separator "\\nHello from mu4e\\n")
  (mu4e-compose-mode)
  {first}
  (message-send))
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make a home with our programs, a real sendmail that keeps what it gets, and a mailbox."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script(folder, "hsmagent", "smime", "rsa")
    script(folder, "hsmagent-smime", "openssl_smime", "rsa")
    script(folder, "hsmagent-sendmail", "sendmail", "rsa")
    real = folder / "real-sendmail"
    real.write_text(f"#!/bin/sh\ncat > '{tmp_path}/sent'\n")
    real.chmod(0o755)
    for name in ("cur", "new", "tmp"):
        (inbox(folder) / name).mkdir(parents=True)
    maildir = f"--maildir={inbox(folder).parent}"
    subprocess.run(["mu", "init", "--quiet", maildir], env=environment(folder), check=True)
    return folder


def environment(programs: Path) -> dict[str, str]:
    found = home(programs.parent, HSMAGENT_TEST_SENDMAIL=f"{programs}/real-sendmail")
    return found | {"PATH": f"{programs}:{found['PATH']}"}


def mu4e(programs: Path, lisp: str) -> str:
    """Evaluate, in an Emacs that has mu4e and our file; return what it printed."""
    init = programs.parent / "init.el"
    init.write_text(f'(require \'mu4e)\n(load "{CONTRIB}")\n{START}{lisp}')
    done = subprocess.run(
        ["emacs", "-q", "--batch", "-l", str(init)],
        env=environment(programs),
        cwd=programs.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def view(programs: Path, mail: bytes) -> str:
    """Show the only mail of the mailbox."""
    (inbox(programs) / "cur/1:2,S").write_bytes(mail)
    subprocess.run(["mu", "index", "--quiet"], env=environment(programs), check=True)
    return mu4e(programs, VIEW)


def inbox(programs: Path) -> Path:
    return programs.parent / "mail/INBOX"


def test_a_good_signature(programs: Path) -> None:
    shown = view(programs, signed(MESSAGE, person("rsa")))
    assert "S/MIME Signed Part:Ok (sender authenticated)" in shown
    assert "The signed words" in shown


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"signed words", b"altered words"),
        (b"From: alice@", b"From: mallory@"),  # somebody else's good signature
    ],
)
def test_a_bad_one(programs: Path, old: bytes, new: bytes) -> None:
    shown = view(programs, signed(MESSAGE, person("rsa")).replace(old, new))
    assert "S/MIME Signed Part:Failed" in shown


def test_decrypt(programs: Path) -> None:
    content = b"Content-Type: text/plain\n\nThe secret words\n"
    made = encrypted_by_openssl(content, person("rsa"), programs)
    assert "The secret words" in view(programs, HEADER + made.replace(b"MIME-Version: 1.0\n", b""))


def test_send_signed(programs: Path) -> None:
    mu4e(programs, SEND.format(first=""))
    sent = (programs.parent / "sent").read_bytes()
    found = verify.message(region(sent), judge())
    assert found.report.ok, found.report.text()
    assert b"Hello from mu4e" in sent


def test_send_encrypted(programs: Path) -> None:
    certificate, _ = person("rsa", "bob@example.org").write(programs, "bob")
    subprocess.run(
        [programs / "hsmagent", "contacts", "add", certificate],
        env=environment(programs),
        check=True,
    )
    mu4e(programs, SEND.format(first="(hsmagent-encrypt)"))
    sent = (programs.parent / "sent").read_bytes()
    assert b"enveloped-data" in sent
    assert b"Hello" not in sent
    assert b"X-HSMAgent" not in sent
