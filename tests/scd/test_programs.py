"""Programs on GPGME, Emacs and gpg, with keys of a token: none of them knows of us."""

import json
from pathlib import Path

import pytest

from hsmagent.mail import keygrip
from tests.parts.desktop.terminal import drive
from tests.parts.mail.gnupg import Gnupg
from tests.parts.mail.people import encrypted_by_openssl, signed
from tests.scd.conftest import KINDS, address, owner

ME = address("rsa")
BODY = "Content-Type: text/plain\n\nThe secret words\n"
HEAD = f"From: {ME}\nTo: {ME}\nSubject: Hi\nDate: Mon, 1 Jun 2026 10:00:00 +0000\n"


def encrypted(folder: Path) -> bytes:
    """Return a mail that OpenSSL has encrypted."""
    made = encrypted_by_openssl(BODY.encode(), owner("rsa"), folder)
    return f"{HEAD}Message-ID: <encrypted@example.org>\n".encode() + made


def signed_mail() -> bytes:
    mail = f"{HEAD}Message-ID: <signed@example.org>\n{BODY}"
    return signed(mail.encode(), owner("rsa"))


GPGME = """
import sys, gpg
from gpg.constants import protocol, sig
for address in sys.argv[1:]:
    context = gpg.Context(protocol=protocol.CMS)
    [key] = context.keylist(pattern=address, secret=True)
    context.signers = [key]
    made, _ = context.sign(b"Hello", mode=sig.mode.DETACH)
    _, verified = context.verify(b"Hello", made)
    assert verified.signatures[0].fpr == key.fpr
[key] = gpg.Context(protocol=protocol.CMS).keylist(pattern=sys.argv[1], secret=True)
context = gpg.Context(protocol=protocol.CMS)
hidden, _, _ = context.encrypt(b"Hello", recipients=[key], sign=False, always_trust=True)
assert b"Hello" not in hidden
assert context.decrypt(hidden, verify=False)[0] == b"Hello"
"""


def test_gpgme_from_python(learned: Gnupg) -> None:
    learned.run("/usr/bin/python3", "-I", "-c", GPGME, *map(address, KINDS))
    assert not learned.asked_by_pinentry


def test_notmuch_reads_and_verifies(learned: Gnupg, tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    for folder in ("cur", "new", "tmp"):
        (mail / folder).mkdir(parents=True)
    (mail / "new" / "1").write_bytes(encrypted(tmp_path))
    (mail / "new" / "2").write_bytes(signed_mail())
    config = tmp_path / "notmuch"
    config.write_text(f"[database]\npath={mail}\n[user]\nname=Me\nprimary_email={ME}\n")
    learned.run("notmuch", f"--config={config}", "new")

    def shown(message: str) -> str:
        return learned.run(
            *("notmuch", f"--config={config}", "show", "--format=json", "--decrypt=true"),
            f"id:{message}@example.org",
        ).decode()

    assert "The secret words" in shown("encrypted")
    assert '"status": "good"' in shown("signed")
    assert json.loads(shown("signed"))


LISP = """
(progn
  (require 'epg)
  (let* ((context (epg-make-context 'CMS))
         (key (car (epg-list-keys context "{me}" t))))
    (setf (epg-context-signers context) (list key))
    (let ((made (epg-sign-string context "Hello")))
      (unless (equal (epg-verify-string context made) "Hello") (error "not verified")))
    (let ((hidden (epg-encrypt-string context "Hello" (list key))))
      (unless (equal (epg-decrypt-string context hidden) "Hello") (error "not decrypted")))))
"""


def test_emacs_epg(learned: Gnupg) -> None:
    learned.run("emacs", "-Q", "--batch", "--eval", LISP.format(me=ME))


def test_gpg_has_a_key_by_its_keygrip(learned: Gnupg) -> None:
    grip = keygrip.of(owner("rsa").key)
    wanted = f"Key-Type: RSA\nKey-Grip: {grip}\nKey-Usage: sign,encrypt\nName-Real: Me\n%commit\n"
    learned.run("gpg", "--batch", "--full-generate-key", data=wanted.encode())
    made = learned.run("gpg", "--batch", "--clearsign", data=b"Hello\n")
    assert b"Hello" in learned.run("gpg", "--batch", "--decrypt", data=made)
    hidden = learned.run("gpg", "--batch", "-e", "-r", "Me", "--trust-model=always", data=b"Hello")
    assert learned.run("gpg", "--batch", "--decrypt", data=hidden) == b"Hello"
    assert not learned.asked_by_pinentry


@pytest.fixture
def neomutt(learned: Gnupg, tmp_path: Path) -> list[str]:
    for name, text in {
        "sendmail": f"#!/bin/sh\ncd '{tmp_path}'; cat > draft; mv draft sent\n",
        "editor": "#!/bin/sh\necho 'Hello from neomutt' >> \"$1\"\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    fingerprint = learned.gpgsm("--with-colons", "--list-secret-keys", ME).decode()
    mine = next(line.split(":")[9] for line in fingerprint.splitlines() if line[:4] == "fpr:")
    (tmp_path / "rc").write_text(
        "set crypt_use_gpgme = yes\nset smime_is_default = yes\nset crypt_autosmime = yes\n"
        "set crypt_autosign = yes\nset crypt_autoencrypt = yes\nset crypt_confirmhook = no\n"
        "set crypt_verify_sig = yes\nset crypt_opportunistic_encrypt = no\n"
        f'set smime_sign_as = "{mine}"\nset smime_default_key = "{mine}"\n'
        f'set from = "{ME}"\nset sendmail = "{tmp_path}/sendmail"\n'
        f'set editor = "{tmp_path}/editor"\nset folder = {tmp_path}\n'
        f"set spoolfile = {tmp_path}/inbox\nset tmpdir = {tmp_path}\n"
        'set record = ""\nset abort_unmodified = no\nset fast_reply = yes\nset wait_key = no\n'
        'set ssl_force_tls = no\nset header_cache = ""\n'
    )
    return ["neomutt", "-n", "-F", f"{tmp_path}/rc"]


def test_neomutt_sends_signed_and_encrypted_and_reads(
    learned: Gnupg, neomutt: list[str], tmp_path: Path
) -> None:
    environment = {**learned.environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    sent = tmp_path / "sent"
    shown = drive(
        [*neomutt, "-s", "Hi", ME],
        environment,
        [(b"Security", b"y")],
        lambda _: sent.exists(),
    )
    assert sent.exists(), shown.decode(errors="replace")
    mail = sent.read_bytes()
    assert b"smime-type=enveloped-data" in mail
    assert b"Hello from neomutt" not in mail
    inbox = tmp_path / "inbox"
    inbox.write_bytes(b"From me@example.org Mon Jun  1 10:00:00 2026\n" + mail + b"\n")
    words = (b"Hello from neomutt", b"Good signature")
    shown = drive(
        [*neomutt, "-f", str(inbox)],
        environment,
        [(b"To rsa@", b"\n")],  # newer ones keep the subject inside
        lambda shown: all(word in shown for word in words),
    )
    for word in words:
        assert word in shown, shown.decode(errors="replace")
    assert not learned.asked_by_pinentry
