"""What goes in comes out: octets as they are, text without a header, fields inside."""

import base64
import email
import re
import subprocess
from pathlib import Path

import pytest

from hsmagent.cli import openssl_smime
from hsmagent.mail import canonical, decrypt, verify
from hsmagent.mail.cms import enveloped
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.spool import CHUNK, Spool
from tests.mail.test_decrypt import decrypted, encrypted
from tests.parts.mail.people import encrypted_by_openssl, judge, person, region, signed
from tests.parts.mail.pki import SoftwareKeys

OCTETS = b"\x89PNG\r\n\x1a\n\0\0\r\r\nABC\nDEF\r\n\xff"
HEAD = b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n"
PART = b"Content-Type: image/png\nContent-Transfer-Encoding: binary\n\n" + OCTETS
MIXED = (
    b'Content-Type: multipart/mixed; boundary="x"\nContent-Transfer-Encoding: binary\n\n'
    b"--x\n\nText\n--x\n" + PART + b"\n--x--\n"
)


def opaque_by_openssl(tmp_path: Path, content: bytes) -> bytes:
    certificate, key = person("rsa").write(tmp_path, "signer")
    command = ["openssl", "cms", "-sign", "-nodetach", "-binary", "-signer", certificate]
    done = subprocess.run([*command, "-inkey", key], input=content, capture_output=True, check=True)
    return b"From: alice@example.org\n" + done.stdout


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_an_opaque_signature_is_over_the_octets_that_are_there(
    tmp_path: Path, newline: bytes
) -> None:
    content = b"Content-Type: text/plain\n\nHello\nWorld\n".replace(b"\n", newline)
    mail = opaque_by_openssl(tmp_path, content)
    assert verify.message(region(mail), judge()).report.ok


def test_other_line_ends_inside_an_opaque_signature_are_a_change(tmp_path: Path) -> None:
    content = b"Content-Type: text/plain\r\n\r\nHello\r\n"
    mail = opaque_by_openssl(tmp_path, content)
    head, _, body = mail.partition(b"\n\n")
    cms = base64.b64decode(body)
    assert content in cms
    changed = cms.replace(b"Hello\r\n", b"Hello\n\n")
    report = verify.message(region(head + b"\n\n" + base64.encodebytes(changed)), judge()).report
    assert "changed after signing" in report.signatures[0].problem


@pytest.mark.parametrize("entity", [PART, MIXED], ids=["part", "multipart"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_binary_content_comes_out_as_it_went_in(entity: bytes, newline: bytes) -> None:
    who = person("rsa")
    lines, octets = (HEAD + entity).split(OCTETS)[0], OCTETS
    mail = lines.replace(b"\n", newline) + octets + (HEAD + entity).split(OCTETS)[1]
    sealed = encrypted(mail, who)
    plain = decrypted(sealed, who)
    if entity is PART:
        assert plain.endswith(b"binary" + newline * 2 + OCTETS)
    else:  # as base64, so that no boundary is in doubt
        *_, part = email.message_from_bytes(plain).walk()
        assert part.get_payload(decode=True) == OCTETS


def test_openssl_reads_binary_content_as_it_went_in(tmp_path: Path) -> None:
    who = person("rsa")
    (tmp_path / "mail").write_bytes(encrypted(HEAD + PART, who))
    _, key = who.write(tmp_path, "to")
    command = ["openssl", "cms", "-decrypt", "-binary", "-inkey", key, "-in"]
    done = subprocess.run([*command, f"{tmp_path}/mail"], capture_output=True, check=True)
    assert done.stdout.endswith(b"\r\n\r\n" + OCTETS)


def test_binary_content_is_signed_as_base64_of_itself() -> None:
    for body in (OCTETS, b"only text\nwith lines\n"):
        mail = signed(HEAD + PART.replace(OCTETS, body), person("rsa"))
        found = verify.message(region(mail), judge())
        assert found.report.ok
        content = b"".join(found.content.chunks()) if found.content else b""
        assert email.message_from_bytes(content).get_payload(decode=True) == body


def sealed(content: bytes, *, gcm: bool = False) -> bytes:
    certificates = [Certificate(person("rsa").der)]
    cms = b"".join(enveloped.build(lambda: iter([content]), certificates, gcm=gcm))
    head = HEAD + b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
    return head + base64.encodebytes(cms)


@pytest.mark.parametrize("gcm", [False, True])
@pytest.mark.parametrize(
    "text",
    [b"just a line", b"Note: see below\n\nTwo\n", "Grüße: an alle\nmehr\n".encode(), b"a\n\nb\n"],
)
def test_text_without_a_header_is_all_there(text: bytes, gcm: bool) -> None:
    plain = decrypted(sealed(text, gcm=gcm), person("rsa"))
    assert plain == HEAD + (
        b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n" + text
    )


def test_what_openssl_made_of_a_text_is_all_there(tmp_path: Path) -> None:
    made = encrypted_by_openssl(b"Note: one\n\nTwo\n", person("rsa"), tmp_path, "smime")
    assert decrypted(HEAD + made, person("rsa")).endswith(b"\n\nNote: one\n\nTwo\n")


def test_octets_without_a_header_are_handed_out_only_when_authenticated() -> None:
    assert decrypted(sealed(OCTETS, gcm=True), person("rsa")).endswith(b"binary\n\n" + OCTETS)
    with pytest.raises(Undecryptable):
        decrypted(sealed(OCTETS), person("rsa"))


def opened(content: bytes) -> tuple[bytes, decrypt.Decrypted]:
    out = Spool()
    keys = SoftwareKeys([person("rsa")])
    done = decrypt.message(region(sealed(content)), out, keys, decrypt.Options(judge=judge()))
    return out.read_at(0, out.size), done


@pytest.mark.parametrize("mark", [b'hp="cipher"', b'protected-headers="v1"'])
def test_a_protected_subject_is_the_one_that_is_given_out(mark: bytes) -> None:
    content = b"From: boss@example.org\nSubject: The real one\nContent-Type: text/plain; "
    plain, done = opened(content + mark + b"\n\nhi\n")
    assert plain.count(b"Subject:") == 1
    assert b"Subject: The real one\n" in plain
    assert plain.startswith(b"From: alice@example.org\n")
    assert done.report is not None
    assert ("Subject", "The real one") in done.report.protected
    assert "the Subject outside is another one: Hi" in done.report.remarks
    assert any("From: boss@example.org" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    "field",
    [
        b"Bcc: eve@evil.test",
        b"Resent-To: eve@evil.test",
        b"Resent-Bcc: eve@evil.test",
        b"X-HSMAgent: unsigned",
        b"Mail-Followup-To: eve@evil.test",
        b"Authentication-Results: example.org; dkim=pass",
    ],
)
def test_a_field_that_programs_act_on_is_never_taken_from_inside(field: bytes) -> None:
    content = field + b'\nSubject: Real\nContent-Type: text/plain; hp="cipher"\n\nhi\n'
    plain, done = opened(content)
    assert b"Subject: Real\n" in plain
    name, value = field.decode().split(": ")
    assert name.lower() not in plain.decode().lower()
    assert any(f"{name.title()}: {value}" in warning for warning in done.warnings)


ODD_CR = {
    "a field": b"Subject: Hi\rBcc: eve@evil.test\n\nHello\n",
    "a content field": b'Content-Type: text/plain; x="a\rb"\n\nHello\n',
    "a line": b"\nHello\rWorld\n",
    "an end": b"\nHello\r",
    "before a line's end": b"\nHello\r\r\nWorld\n",
    "a part": b'Content-Type: multipart/mixed; boundary="x"\n\n--x\n\nHello\r!\n--x--\n',
    "a preamble": b'Content-Type: multipart/mixed; boundary="x"\n\na\rb\n--x\n\nHello\n--x--\n',
    "a part's field": b'Content-Type: multipart/mixed; boundary="x"\n\n--x\nA: \rb\n\nHello\n--x--',
    "a message": b"Content-Type: message/rfc822\n\nSubject: In\rside\n\nHello\n",
}
TO_BOB = b"From: alice@example.org\nTo: bob@example.org\n"


@pytest.mark.parametrize("where", ODD_CR)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_no_bare_cr_leaves(where: str, newline: bytes) -> None:
    mail = TO_BOB.replace(b"\n", newline) + re.sub(rb"(?<!\r)\n", newline, ODD_CR[where])
    who = person("rsa")
    sent = b"".join(canonical.sendable(region(mail)).chunks())
    for result in (
        sent,
        signed(mail, who),
        encrypted(mail, who),
        decrypted(encrypted(mail, who), who),
    ):
        assert b"\r" not in result.replace(b"\r\n", b"\n")
        assert email.message_from_bytes(result)["Bcc"] is None
    for text in ("Hello", "World" if b"World" in mail else ""):
        assert text in str(email.message_from_bytes(sent))


def test_what_has_no_bare_cr_is_sent_as_it_is() -> None:
    for mail in (HEAD + b"\nHello \n", (HEAD + b"\nHello\n").replace(b"\n", b"\r\n")):
        whole = region(mail)
        assert canonical.sendable(whole) is whole


def test_the_chunks_of_a_message_do_not_hide_a_bare_cr() -> None:
    for at in (CHUNK - 2, CHUNK - 1, CHUNK, CHUNK + 1):
        for end, odd in ((b"\r\n", False), (b"\ra", True)):
            body = b"a" * 60 + b"\r\n"
            mail = HEAD.replace(b"\n", b"\r\n") + b"\r\n"
            mail = (mail + body * (at // len(body) + 1))[: at - 2] + b"\r\n" + end + body
            whole = region(mail.replace(b"\r\r\n", b"\r\n"))
            assert (canonical.sendable(whole) is not whole) is odd, (at, end)


def test_a_bare_cr_inside_makes_no_field_outside() -> None:
    kind = b'Content-Type: text/plain; hp="cipher" (a\rFrom: eve@evil.test)\n\nhi\n'
    plain, _ = opened(b"Subject: Real\rBcc: eve@evil.test\r\r\nX-B: a\0b\n" + kind)
    assert b"\r" not in plain
    assert b"\0" not in plain
    read = email.message_from_bytes(plain)
    assert read.get_all("From") == ["alice@example.org"]
    assert read["Bcc"] is None
    assert read.get_payload() == "hi\n"


def test_other_fields_inside_are_told_of() -> None:
    plain, done = opened(b"Subject: Other\nContent-Type: text/plain\n\nhi\n")
    assert b"Subject: Hi\n" in plain
    assert any("Subject: Other" in warning for warning in done.warnings)
    wrapped = b"Content-Type: message/rfc822; forwarded=no\n\nSubject: Inside\n\nhi\n"
    plain, done = opened(wrapped)
    assert plain.endswith(b"Subject: Inside\n\nhi\n")
    assert done.report is not None
    assert ("Subject", "Inside") in done.report.protected


def test_verify_shows_protected_fields() -> None:
    inner = b'Content-Type: text/plain; hp="clear"\nSubject: Signed\n\nhi\n'
    from tests.mail.test_odd import signed_as_is

    report = verify.message(region(HEAD + signed_as_is(inner)), judge()).report
    assert report.ok
    assert report.protected == (("Subject", "Signed"),)
    assert "Protected Subject: Signed" in report.text()
    assert "the Subject outside is another one: Hi" in report.text()


def test_the_openssl_face_hands_out_all_that_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for content in (b"just a line\n", b"Subject: x\nContent-Type: text/plain\n\nhi\n", PART):
        (tmp_path / "mail").write_bytes(sealed(content))
        arguments = ["-decrypt", "-in", f"{tmp_path}/mail", "-out", f"{tmp_path}/out"]
        assert openssl_smime.main(arguments, lambda: SoftwareKeys([person("rsa")])) == 0
        assert (tmp_path / "out").read_bytes() == content
