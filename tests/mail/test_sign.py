"""Signing, as OpenSSL and we ourselves read it."""

import subprocess
from pathlib import Path

import pytest

from hsmagent.mail import verify
from tests.parts.mail.people import KINDS, ca_file, judge, person, region, signed

MESSAGE = (
    b"From: Alice Example <alice@example.org>\nTo: bob@example.org\nSubject: Hi\n"
    b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    b"Gr\xc3\xbc\xc3\x9fe\n\nFrom here on, with white space  \n.\n-- \nAlice\n"
)


@pytest.mark.parametrize("opaque", [False, True], ids=["detached", "opaque"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("kind", [*(k for k in KINDS if k != "ed25519"), "pss"])
def test_openssl_and_we_verify_what_we_sign(
    kind: str, newline: bytes, opaque: bool, tmp_path: Path
) -> None:
    who = person("rsa" if kind == "pss" else kind)
    message = MESSAGE.replace(b"\n", newline)
    mail = signed(message, who, opaque=opaque, pss=kind == "pss")
    (tmp_path / "mail").write_bytes(mail)
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-in", tmp_path / "mail", "-CAfile", ca_file(tmp_path)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Gr=C3=BC=C3=9Fe" in done.stdout
    found = verify.message(region(mail), judge())
    assert found.report.ok, found.report.text()
    assert found.report.sender == ("alice@example.org",)
    assert mail.count(b"\r\n") == (mail.count(b"\n") if newline == b"\r\n" else 0)


def test_a_header_that_ends_without_a_line_ending() -> None:
    mail = signed(b"Subject: Hi\nFrom: alice@example.org", person("p256"))
    assert b"\nFrom: alice@example.org\nMIME-Version: 1.0\n" in mail
    assert verify.message(region(mail), judge()).report.ok


def test_ed25519(tmp_path: Path) -> None:
    """RFC 8419 is new to OpenSSL 3.2: 3.0 can neither read such a signature nor make one."""
    who = person("ed25519")
    mail = signed(MESSAGE, who)
    assert verify.message(region(mail), judge()).report.ok
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    certificate, key = who.write(tmp_path, "ed25519")
    is_old = version.stdout.startswith("OpenSSL 3.0.")
    make = ["-sign", "-signer", certificate, "-inkey", key]
    read = ["-verify", "-CAfile", ca_file(tmp_path)]
    for verb in (make, read) if is_old else (read,):
        done = subprocess.run(
            ["openssl", "cms", *verb], input=mail, capture_output=True, check=False
        )
        assert (done.returncode != 0) is is_old, done.stderr
