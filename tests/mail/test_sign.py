"""Signing, as OpenSSL and we ourselves read it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from hsmagent.mail import mime, sign, verify
from hsmagent.mail.spool import Region, Spool
from tests.parts.mail.people import KINDS, ca_file, judge, person, region, signed
from tests.parts.mail.pki import NOW, SoftwareKeys

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


class Counted:
    """A message, and how much of it was read."""

    def __init__(self, data: bytes) -> None:
        self.size, self.read = len(data), 0
        self._data = data

    def read_at(self, offset: int, count: int) -> bytes:
        found = self._data[offset : offset + count]
        self.read += len(found)
        return found


class Asked(SoftwareKeys):
    """Keys that count for how many signatures they were asked."""

    times = 0

    def sign_attributes(self, *arguments: Any) -> bytes:
        self.times += 1
        return super().sign_attributes(*arguments)


@pytest.mark.parametrize(
    ("line", "reads"),
    [(b"a sturdy line\n", 2), (b"one with a blank \n", 0)],
    ids=["as it is", "written anew"],
)
def test_a_large_mail_is_read_once_before_it_is_written(line: bytes, reads: int) -> None:
    source = Counted(MESSAGE[: MESSAGE.index(b"\n\n") + 2] + line * 600_000)
    keys = Asked([person("p256")])
    with Spool() as out:
        sign.message(Region.whole(source), out, keys, sign.Options(NOW))
        assert verify.message(Region.whole(out), judge()).report.ok
    assert keys.times == 1
    if reads:
        assert source.read < reads * source.size + 2 * mime.MAX_HEADER


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
