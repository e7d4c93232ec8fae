"""A signature that the key made for another purpose is shown as one over a mail."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hsmagent.cli import gpgsm, openssl_smime
from hsmagent.mail import verify
from hsmagent.mail.cms import der, oids
from hsmagent.mail.cms.certificates import Certificate
from tests.parts.mail.people import home, judge, person, region
from tests.parts.mail.pki import SoftwareKeys

LOGIN = b"\0\0\0\x20" + bytes(32) + b"\x32\0\0\0\x05Pay M\0\0\0\x0essh-connection"
SSHSIG = b"SSHSIG\0\0\0\x04file\0\0\0\0"
CONTENTS = [
    LOGIN,
    SSHSIG,
    b"tree 123\nauthor A <a@b> 1 +0000\n\nContent-Type: no\n",
    b"\x31\x0a" + b"\x30" * 10,
    b"Hello: this has no Content field\n\nPay Mallory\n",
    b"Content-Type: text/plain\n",
]
MAIL = b"Content-Type: text/plain\r\n\r\nHello\r\n"


def bare(content: bytes, *, inside: bool) -> bytes:
    """Return a SignedData without signed attributes over what the key has signed."""
    who = person("p256")
    certificate = Certificate(who.der)
    signature = who.private.sign(content, ec.ECDSA(hashes.SHA256()))
    digest = der.sequence(der.oid(oids.DIGESTS["sha256"]))
    info = der.sequence(
        der.integer(1),
        certificate.issuer_and_serial,
        digest,
        der.sequence(der.oid(oids.ECDSA_WITH["sha256"])),
        der.octets(signature),
    )
    held = der.tlv(0xA0, der.octets(content)) if inside else b""
    signed = der.sequence(
        der.integer(1),
        der.set_of(digest),
        der.sequence(der.oid(oids.ID_DATA), held),
        der.tlv(0xA0, certificate.der),
        der.set_of(info),
    )
    return der.sequence(der.oid(oids.ID_SIGNED_DATA), der.tlv(0xA0, signed))


def as_mail(cms: bytes) -> bytes:
    return (
        b"From: alice@example.org\nContent-Type: application/pkcs7-mime\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(cms)
    )


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in home(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("content", CONTENTS)
def test_no_face_takes_it(content: bytes, trusted: Path) -> None:
    found = verify.message(region(as_mail(bare(content, inside=True))), judge()).report
    assert not found.ok
    assert "does not read as mail" in found.signatures[0].problem
    (trusted / "sig").write_bytes(bare(content, inside=False))
    (trusted / "content").write_bytes(content)
    keys = SoftwareKeys([])
    detached = ["-verify", "-inform", "DER", "-in", f"{trusted}/sig", "-binary"]
    out = ["-out", f"{trusted}/out", "-content", f"{trusted}/content"]
    assert openssl_smime.main([*detached, *out], lambda: keys) == 4
    assert gpgsm.main(["--verify", f"{trusted}/sig", f"{trusted}/content"], lambda: keys) == 1


def test_what_reads_as_mail_is_taken(trusted: Path) -> None:
    found = verify.message(region(as_mail(bare(MAIL, inside=True))), judge()).report
    assert found.ok, found.text()
    (trusted / "sig").write_bytes(bare(MAIL, inside=False))
    (trusted / "content").write_bytes(MAIL)
    arguments = ["-verify", "-inform", "DER", "-in", f"{trusted}/sig", "-binary"]
    arguments += ["-content", f"{trusted}/content", "-out", f"{trusted}/out"]
    assert openssl_smime.main(arguments, lambda: SoftwareKeys([])) == 0
