"""Verifying what OpenSSL signed, and refusing what was tampered with."""

import base64
import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from hsmagent.errors import HsmAgentError
from hsmagent.mail import verify
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.report import WHOLE
from hsmagent.mail.trust import Anchors
from hsmagent.mail.verify import Judge
from tests.parts.mail.people import judge, person, region, root, signed
from tests.parts.mail.pki import NOW, authority

BODY = b"Content-Type: text/plain\n\nHello\nWorld\n"
MESSAGE = b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n" + BODY


def openssl_sign(tmp_path: Path, kind: str, *options: str) -> bytes:
    certificate, key = person(kind).write(tmp_path, kind)
    command = ["openssl", "cms", "-sign", "-signer", certificate, "-inkey", key, *options]
    done = subprocess.run(command, input=BODY, capture_output=True, check=True)
    return b"From: Alice <alice@example.org>\n" + done.stdout


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-nodetach",),
        ("-nodetach", "-stream"),
        ("-md", "sha384"),
        ("-md", "sha512", "-keyid"),
        ("-noattr",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
def test_we_verify_what_openssl_signs(kind: str, options: tuple[str, ...], tmp_path: Path) -> None:
    found = verify.message(region(openssl_sign(tmp_path, kind, *options)), judge())
    assert found.report.ok, found.report.text()
    assert found.report.signatures[0].covers == WHOLE
    assert found.content is not None
    assert b"".join(found.content.chunks()).replace(b"\r", b"") == BODY


@pytest.mark.parametrize("digest", ["sha256", "sha384"])
def test_we_verify_openssl_pss(digest: str, tmp_path: Path) -> None:
    mail = openssl_sign(tmp_path, "rsa", "-keyopt", "rsa_padding_mode:pss", "-md", digest)
    assert verify.message(region(mail), judge()).report.ok


def test_sha1_proves_nothing(tmp_path: Path) -> None:
    report = verify.message(region(openssl_sign(tmp_path, "rsa", "-md", "sha1")), judge()).report
    assert not report.ok
    assert "SHA1" in report.signatures[0].problem


@pytest.mark.parametrize("opaque", [False, True])
def test_changed_content_is_bad(opaque: bool) -> None:
    mail = signed(MESSAGE, person("p256"), opaque=opaque)
    if opaque:
        head, _, body = mail.partition(b"\n\n")
        der = base64.b64decode(body).replace(b"World", b"Wurld")
        mail = head + b"\n\n" + base64.encodebytes(der)
    else:
        mail = mail.replace(b"World", b"Wurld")
    report = verify.message(region(mail), judge()).report
    assert not report.ok
    assert not report.signatures[0].intact
    assert "changed" in report.signatures[0].problem


def test_report_is_machine_readable() -> None:
    report = json.loads(
        verify.message(region(signed(MESSAGE, person("rsa"))), judge()).report.json()
    )
    assert report["ok"] is True
    assert report["sender"] == ["alice@example.org"]
    signature = report["signatures"][0]
    assert signature["who"]["addresses"] == ["alice@example.org"]
    assert signature["covers"] == "the whole body"
    assert signature["signed_at"] == f"{NOW:%Y-%m-%dT%H:%M:%SZ}"


def test_unknown_root_is_not_trusted() -> None:
    other = Judge(Anchors((Certificate(authority("Other").der),)), NOW)
    report = verify.message(region(signed(MESSAGE, person("rsa"))), other).report
    assert not report.ok
    assert report.signatures[0].intact
    assert "trusted root" in report.signatures[0].problem


def test_expired_certificate_is_not_trusted() -> None:
    later = Judge(judge().anchors, NOW + timedelta(days=4000))
    assert not verify.message(region(signed(MESSAGE, person("rsa"))), later).report.ok


@pytest.mark.parametrize(
    "sender",
    [
        b"bob@example.org",
        b"alice@example.org.evil.test",
        b"malice@example.org",
        b'"alice@example.org" <mallory@evil.test>',
        b"alice@example.org, bob@example.org",
        b"Alice@example.org",
        b"",
    ],
)
def test_sender_must_be_the_signer(sender: bytes) -> None:
    mail = signed(b"From: " + sender + MESSAGE[23:], person("p256"), sender="alice@example.org")
    report = verify.message(region(mail), judge()).report
    assert report.signatures[0].ok
    assert not report.ok
    assert report.sender_matches is False


def test_a_sender_that_cannot_be_shown_is_none() -> None:
    mail = signed(MESSAGE, person("p256")).replace(b"alice@", b"\x1bc\xe2\x80\xae\xff@", 1)
    report = verify.message(region(mail), judge()).report
    assert report.sender_matches is False
    assert report.text().replace("\n", "").isprintable()


def test_an_international_domain_is_the_same_in_both_forms() -> None:
    who = root().issue("p256", mail=("alice@xn--bcher-kva.org",), label="who")
    for domain in ("xn--bcher-kva.org", "B\u00dcCHER.org"):
        mail = signed(MESSAGE.replace(b"example.org", domain.encode(), 1), who)
        assert verify.message(region(mail), judge()).report.ok


def test_domain_case_does_not_matter() -> None:
    mail = signed(MESSAGE.replace(b"example.org\nTo", b"EXAMPLE.org\nTo"), person("p256"))
    assert verify.message(region(mail), judge()).report.ok


def test_two_from_fields_are_refused() -> None:
    mail = b"From: mallory@evil.test\n" + signed(MESSAGE, person("p256"))
    assert not verify.message(region(mail), judge()).report.ok


@pytest.mark.parametrize(
    "header",
    [
        b"X-A: b\rFrom: mallory@evil.test\n",
        b"X-A: b\r\rX-B: c\n",
        b"X-A: b\r\r\n",
        b"X-A: b\0c\n",
        b"From mallory\rFrom: mallory@evil.test\n",
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_bare_cr_or_nul_in_the_header_hides_no_from(header: bytes, newline: bytes) -> None:
    mail = header + signed(MESSAGE, person("p256"))
    if newline != b"\n":
        mail = mail.replace(b"\n", newline)
    report = verify.message(region(mail), judge()).report
    assert report.signatures[0].ok
    assert (report.ok, report.sender, report.sender_matches) == (False, (), False)
    assert "it has no From that can be read" in report.problems
    assert any("bare CR" in problem for problem in report.problems)


def test_a_from_that_only_others_read_is_not_overlooked() -> None:
    mail = signed(MESSAGE, person("p256"))
    entity = mail[mail.index(b"MIME-Version:") :]
    assert verify.message(region(entity), judge()).report.ok
    entity = entity.replace(b"\n", b"\rFrom: mallory@evil.test\n", 1)
    assert not verify.message(region(entity), judge()).report.ok


def test_san_hides_the_subject_address() -> None:
    who = root().issue("p256", mail=("other@example.org",), subject_mail="alice@example.org")
    report = verify.message(region(signed(MESSAGE, who, key=who.label)), judge()).report
    assert report.sender_matches is False
    alone = root().issue("p256", mail=(), subject_mail="alice@example.org")
    assert verify.message(region(signed(MESSAGE, alone)), judge()).report.ok


def test_unsigned_part_around_a_signed_one_is_said() -> None:
    inner = signed(MESSAGE, person("p256")).partition(b"MIME-Version")[2].partition(b"\n")[2]
    mail = (
        b'From: alice@example.org\nContent-Type: multipart/mixed; boundary="x"\n\n--x\n'
        + inner
        + b"\n--x\n\nA list's footer\n--x--\n"
    )
    report = verify.message(region(mail), judge()).report
    assert not report.ok
    assert report.signatures[0].covers == "part 1"
    assert report.signatures[0].ok
    assert report.problems[0] == "only a part of it is signed"


def test_content_inside_a_multipart_signed_signature_is_refused() -> None:
    opaque = signed(MESSAGE, person("p256"), opaque=True).partition(b"\n\n")[2]
    mail = (
        b"From: alice@example.org\nContent-Type: multipart/signed; boundary=x;"
        b' protocol="application/pkcs7-signature"\n\n--x\n\nSomething else\n--x\n'
        b"Content-Type: application/pkcs7-signature\nContent-Transfer-Encoding: base64\n\n"
        + opaque
        + b"\n--x--\n"
    )
    with pytest.raises(HsmAgentError, match="brings its own"):
        verify.message(region(mail), judge())
