"""Every verdict in a sentence of ours: what was checked, what was found, what to do."""

import base64
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsmagent.errors import HsmAgentError
from hsmagent.mail import decrypt, roots, sign, verdict, verify
from hsmagent.mail.cms import signed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.keys import Context
from hsmagent.mail.report import SEALED, Report
from hsmagent.mail.spool import Spool
from hsmagent.mail.trust import Anchors
from hsmagent.mail.verify import Judge
from hsmagent.model import Scheme
from tests.mail.test_decrypt import encrypted
from tests.mail.test_pkits import DATA, MAILS, WHEN
from tests.parts.mail.people import judge, person, region, root
from tests.parts.mail.people import signed as signed_mail
from tests.parts.mail.pki import NOW, SoftwareKeys, authority

BODY = b"Content-Type: text/plain\n\nHello\n"
MESSAGE = b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n" + BODY
# What asn1crypto, pyhanko-certvalidator, cryptography and Python say, and we do not.
LIBRARY = re.compile(
    r"The path could not|end-entity|intermediate certificate \d|Constraint\(|asn1crypto|Error pars"
    r"|list index|object has no|Traceback|<class|not enough data|unsupported critical|, but should"
    r"|None|\bnative\b|\bNot yet valid\b|does not match|Exception|\b(Value|Type|Key)Error"
)


def report(mail: bytes, measure: Judge | None = None) -> Report:
    return verify.message(region(mail), measure or judge()).report


def test_no_verdict_of_pkits_holds_library_text() -> None:
    top = Certificate((DATA / "certs/TrustAnchorRootCertificate.crt").read_bytes())
    seen = set()
    for mail in MAILS:
        [signature] = report(mail.read_bytes(), Judge(Anchors((top,)), WHEN)).signatures
        for sentence in (signature.problem, *signature.remarks):
            assert not LIBRARY.search(sentence), (mail.stem, sentence)
            assert "at the certificate of" not in sentence, (mail.stem, sentence)  # the last resort
            seen.add(re.sub(r"(certificate|chain) of .*|for .*:|\d{4}-\d\d-\d\d.*", "", sentence))
    assert len(seen) > 12


def expired_authority() -> bytes:
    ca = root().authority("Old", end=NOW - timedelta(days=1))
    return by(ca.issue(), ca)


def by(who: object, *files: object, **options: object) -> bytes:
    out = Spool()
    given = tuple(Certificate(one.der) for one in files)  # type: ignore[attr-defined]
    made = sign.Options(NOW, files=given, allow_expired=True, **options)  # type: ignore[arg-type]
    sign.message(region(MESSAGE), out, SoftwareKeys([who]), made)  # type: ignore[list-item]
    return out.read_at(0, out.size)


def by_openssl(*options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = person("rsa").write(Path(folder), "who")
        command = ["openssl", "cms", "-sign", "-signer", certificate, "-inkey", key, *options]
        done = subprocess.run(command, input=BODY, capture_output=True, check=True)
    return b"From: alice@example.org\n" + done.stdout


UNCHECKED = "Signature that was not checked"
UNPROVEN = "Signature of unproven origin"
BAD = "BAD signature"
WALK: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "good": (lambda: by(person("rsa")), "Good signature", "revocation was not checked"),
    "changed": (
        lambda: by(person("rsa")).replace(b"Hello", b"Hallo"),
        BAD,
        "the content was changed after signing",
    ),
    "sha3": (lambda: by_openssl("-md", "sha3-256"), UNCHECKED, "its digest (SHA3-256)"),
    "sha1": (lambda: by_openssl("-md", "sha1"), UNCHECKED, "it uses SHA1, which proves nothing"),
    "no certificate": (lambda: by_openssl("-nocerts"), UNCHECKED, "`hsmagent contacts add`"),
    "another root": (lambda: by(authority("Other").issue()), UNPROVEN, verdict.NO_CHAIN),
    "expired": (lambda: by(root().issue(end=NOW - timedelta(hours=1))), UNPROVEN, "expired on"),
    "old authority": (expired_authority, UNPROVEN, "the certificate of Old expired on"),
    "critical": (
        lambda: by(
            root().issue(more=[x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x")])
        ),
        "Good signature",
        "",
    ),
}


@pytest.mark.parametrize("name", WALK)
def test_head_and_reason_of_every_verdict(name: str) -> None:
    make, head, why = WALK[name]
    text = report(make()).text()
    assert text.startswith(head), text
    assert why in text
    assert not LIBRARY.search(text)


def test_the_from_is_not_said_to_differ_from_itself() -> None:
    for mail in (
        by(authority("Other").issue()),
        by(person("rsa")).replace(b"Hello", b"Hallo"),
    ):
        found = report(mail)
        assert found.problems == ()
        assert "From is" not in found.text()
    other = report(by(person("rsa")).replace(b"From: alice@", b"From: mallory@"))
    assert other.problems == (
        (
            "the From is mallory@example.org, but the signature names Alice Example "
            "<alice@example.org>"
        ),
    )
    nobody = report(by_openssl("-nocerts"))
    assert nobody.problems == (
        "the From is alice@example.org, but the signature does not tell whose it is",
    )


def opened(mail: bytes) -> decrypt.Decrypted:
    keys = SoftwareKeys([person("rsa")])
    return decrypt.message(region(mail), Spool(), keys, decrypt.Options(judge=judge()))


def test_an_unsigned_mail_is_not_said_to_have_failed() -> None:
    done = opened(encrypted(MESSAGE, person("rsa")))
    assert done.report is not None
    assert done.report.text() == "Nothing was verified: there is no signature"
    assert done.warnings


def test_an_encrypted_mail_is_said_to_be_one() -> None:
    found = report(encrypted(MESSAGE, person("rsa")))
    assert not found.ok
    assert "it is encrypted; `hsmagent smime decrypt --all`" in found.text()
    assert "not signed" not in found.text()


def test_certificates_alone_are_said_to_be_that() -> None:
    certificate = Certificate(person("rsa").der)
    before, after = signed.wrap(b"", Scheme.RSA_PKCS1_SHA256, [certificate], None)
    head = b"From: a@b\nContent-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
    with pytest.raises(HsmAgentError, match="certificates only, and no signature"):
        report(head + base64.encodebytes(before + after))


def test_a_signature_around_the_encryption_is_about_the_sender_only() -> None:
    who = person("rsa")
    mail = signed_mail(encrypted(MESSAGE, who), who)
    for found in (report(mail), opened(mail).report):
        assert found is not None
        assert found.signatures[0].ok
        assert found.signatures[0].covers == SEALED
        assert found.sender_matches is None
        assert not found.ok
        assert "it shows who sent the mail, not who wrote it" in found.text()
        assert "is from the signer" not in found.text()


def test_a_signature_by_the_writer_inside_counts() -> None:
    writer, sender = person("rsa"), person("p256", "carol@example.org", "Carol")
    inner = signed_mail(MESSAGE, writer)
    mail = signed_mail(encrypted(inner, writer), sender, sender="carol@example.org")
    found = opened(mail).report
    assert found is not None
    assert found.ok, found.text()
    assert [s.covers for s in found.signatures] == [SEALED, "the whole body"]
    assert "The mail is from the signer: alice@example.org" in found.text()
    forged = opened(mail.replace(b"From: alice@", b"From: carol@")).report
    assert forged is not None
    assert not forged.ok


def test_a_crl_that_decides_nothing_is_said_to() -> None:
    top = authority()
    [made] = roots.read_crls(top.crl())
    broken = made[:-3] + b"\0\0\0"
    measure = Judge(Anchors((Certificate(top.der),), (broken, b"\x30\x00", made[:50])), NOW)
    [remark] = report(by(top.issue()), measure).signatures[0].remarks
    assert "the CRL's signature is wrong" in remark or "there is no CRL" in remark


def test_purposes_of_the_signer_are_named() -> None:
    who = root().issue(purposes=(ExtendedKeyUsageOID.CODE_SIGNING,))
    certificate = Certificate(who.der)
    attributes = signed.attributes(
        hashlib.sha256(BODY.replace(b"\n", b"\r\n")).digest(),
        Scheme.ECDSA_SHA256,
        certificate,
        NOW,
    )
    signature = SoftwareKeys([who]).sign_attributes(
        who.key, Scheme.ECDSA_SHA256, attributes, Context()
    )
    info = signed.signer_info(certificate, Scheme.ECDSA_SHA256, attributes, signature)
    content = BODY.replace(b"\n", b"\r\n")
    before, after = signed.wrap(info, Scheme.ECDSA_SHA256, [certificate], len(content))
    head = b"From: alice@example.org\nContent-Type: application/pkcs7-mime\n"
    mail = head + b"Content-Transfer-Encoding: base64\n\n"
    found = report(mail + base64.encodebytes(before + content + after))
    assert found.signatures[0].intact
    assert "is for signing programs, not for mail" in found.signatures[0].problem
