"""Emacs's smime.el, with contrib/mail/hsmagent-smime.el, through hsmagent-smime."""

import subprocess
from pathlib import Path

from hsmagent.mail import verify
from tests.parts.mail.people import ca_file, home, judge, person, region, script, signed

CONTRIB = Path(__file__).parents[2] / "contrib/mail/hsmagent-smime.el"
BODY = "Content-Type: text/plain\n\nHello from Emacs\n"


def emacs(folder: Path, text: str, lisp: str) -> str:
    """Put text into a buffer, evaluate, and return what the buffer holds then."""
    program = script(folder, "hsmagent-smime", "openssl_smime", "rsa")
    script(folder, "hsmagent", "smime", "rsa")
    environment = home(folder)
    environment["PATH"] = f"{Path(program).parent}:{environment['PATH']}"
    (folder / "in").write_text(text, newline="")
    form = (
        f'(progn (load "{CONTRIB}") (with-temp-buffer (insert-file-contents "{folder}/in")'
        f' {lisp} (write-region (point-min) (point-max) "{folder}/out")))'
    )
    subprocess.run(
        ["emacs", "-Q", "--batch", "--eval", form],
        env=environment,
        cwd=folder,
        check=True,
        timeout=60,
    )
    return (folder / "out").read_text()


def test_sign(tmp_path: Path) -> None:
    made = emacs(tmp_path, BODY, '(smime-sign-buffer (expand-file-name "alice@example.org"))')
    found = verify.message(region(b"From: alice@example.org\n" + made.encode()), judge())
    assert found.report.ok, found.report.text()
    assert "Hello from Emacs" in made


def test_encrypt_and_decrypt(tmp_path: Path) -> None:
    certificate, _ = person("rsa").write(tmp_path, "to")
    made = emacs(tmp_path, BODY, f'(smime-encrypt-buffer (list "{certificate}"))')
    assert "smime-type=enveloped-data" in made
    plain = emacs(
        tmp_path,
        made,
        '(smime-decrypt-region (point-min) (point-max) (expand-file-name "any"))',
    )
    assert plain.endswith(BODY)


def test_verify(tmp_path: Path) -> None:
    mail = signed(b"From: alice@example.org\n" + BODY.encode(), person("rsa")).decode()
    lisp = '(let ((smime-CA-file "{}")) (unless (smime-verify-buffer) (error "no")))'
    emacs(tmp_path, mail, lisp.format(ca_file(tmp_path)))


def test_the_from_decides_whose_key_signs(tmp_path: Path) -> None:
    lisp = """(require 'mml-smime) (let ((key (cadr (mml-smime-openssl-sign-query))))
      (erase-buffer) (insert key))"""
    for sender in ("alice@example.org", "Bob B <bob@example.org>"):
        made = emacs(tmp_path, f"From: {sender}\n--text follows this line--\nHello\n", lisp)
        assert made == sender.partition("<")[2].rstrip(">") or sender == made


def read_in_gnus(folder: Path, mail: bytes) -> str:
    lisp = """(setq mm-verify-option 'always gnus-buttonized-mime-types '("multipart/signed"))
      (require 'gnus-art) (setq smime-CA-file "{}") (gnus-article-prepare-display)"""
    return emacs(folder, mail.decode(), lisp.format(ca_file(folder)))


def test_gnus_tells_who_signed(tmp_path: Path) -> None:
    mail = signed(b"From: alice@example.org\n" + BODY.encode(), person("rsa"))
    shown = read_in_gnus(tmp_path, mail)
    assert "Hello from Emacs" in shown
    assert "Signed Part:Ok (sender authenticated)" in shown


def test_gnus_believes_no_certificate_that_only_lies_beside_the_signers(tmp_path: Path) -> None:
    certificate, key = person("rsa").write(tmp_path, "alice")
    bob, _ = person("p256", "bob@example.org", "Bob").write(tmp_path, "bob")
    made = subprocess.run(
        ["openssl", "cms", "-sign", "-signer", certificate, "-inkey", key, "-certfile", bob],
        input=BODY.encode(),
        capture_output=True,
        check=True,
    )
    shown = read_in_gnus(tmp_path, b"From: bob@example.org\n" + made.stdout)
    assert "Signed Part:Failed" in shown
