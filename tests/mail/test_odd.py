"""Odd certificates, names and headers: judged as far as they can be, and told truly."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from hsmagent.errors import UsageError
from hsmagent.mail import intake, sign, verify
from hsmagent.mail.cms import certificates, der, oids, recipients, signed, signers
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.recipients import Nobody
from hsmagent.mail.cms.signers import Covered
from hsmagent.mail.identity import Identity
from hsmagent.mail.keys import Context
from hsmagent.mail.spool import Memory
from hsmagent.model import Scheme
from tests.parts.mail.people import judge, person, region, root
from tests.parts.mail.people import signed as signed_mail
from tests.parts.mail.pki import NOW, Person, SoftwareKeys

VECTORS = Path(cryptography_vectors.__file__).parent / "x509"
MAIL = b"From: alice@example.org\nContent-Type: text/plain\n\nHello\n"


def raw(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def uri(text: bytes) -> bytes:
    return der.tlv(0x86, text)


AIA, CRLDP = "1.3.6.1.5.5.7.1.1", "2.5.29.31"
BRACKET = uri(b"http://[not-an-address/x")
ODD = {
    "URI in AIA": [raw(AIA, der.sequence(der.sequence(der.oid("1.3.6.1.5.5.7.48.2"), BRACKET)))],
    "URI in CRLDP": [raw(CRLDP, der.sequence(der.sequence(der.tlv(0xA0, der.tlv(0xA0, BRACKET)))))],
    "AIA that is none": [raw(AIA, b"\x04\x03abc")],
    "issuer's other names": [raw("2.5.29.18", der.sequence(der.tlv(0xA5, b"\x02\x01\x01")))],
}


@pytest.mark.parametrize("name", ODD)
def test_what_nobody_reads_may_be_odd(name: str) -> None:
    mail = signed_mail(MAIL, root().issue(more=ODD[name]))
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()


@pytest.mark.parametrize(
    "odd",
    [
        der.tlv(0xA3, der.tlv(0x30, b"\x02\x01\x05")),  # X.400
        der.tlv(0xA5, der.tlv(0xA1, der.tlv(0x0C, b"x"))),  # ediPartyName
        BRACKET,
        der.tlv(0x81, b"\xff\xfe@example.org"),
        der.tlv(0xA0, der.oid("1.2.3"), der.tlv(0xA0, b"\x0c\x01a")),
    ],
)
def test_odd_alternative_names_do_not_hide_the_address(odd: bytes) -> None:
    names_of = der.sequence(odd, der.tlv(0x81, b"alice@example.org"))
    who = root().issue(mail=(), more=[raw("2.5.29.17", names_of)])
    assert Certificate(who.der).addresses == ("alice@example.org",)
    assert verify.message(region(signed_mail(MAIL, who)), judge()).report.ok


def test_an_extension_that_is_used_may_stand_once() -> None:
    one = root().issue().der
    usage = bytes.fromhex("0603551d25")
    assert usage in one
    twice = one.replace(bytes.fromhex("0603551d11"), usage)  # the SAN becomes another EKU
    with pytest.raises(UsageError, match="cannot be read"):
        Certificate(twice)


def unknown_key(kind: str) -> Certificate:
    """Return a certificate with a key of this kind, signed by nobody."""
    made = root().issue("p256").der
    spki = person("p256").key.spki
    mine = Certificate(made).spki
    assert len(mine) == len(spki)
    other = der.sequence(der.sequence(der.oid(kind)), der.tlv(3, b"\0", bytes(1312)))
    from hsmagent.mail.cms import ber

    reader = ber.Reader(Memory(made))
    reader.enter(ber.SEQUENCE, "it")
    tbs = ber.Reader(Memory(reader.element(10_000, "it")))
    tbs.enter(ber.SEQUENCE, "it")
    fields = [tbs.element(10_000, "it") for _ in range(8)]
    fields[6] = other
    rest = [reader.element(10_000, "it") for _ in range(2)]
    return Certificate(der.sequence(der.sequence(*fields), *rest))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
        ("1.2.840.10040.4.1", "DSA"),
        ("1.3.101.113", "Ed448"),
        ("1.3.101.110", "X25519"),
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_a_key_of_a_kind_that_is_not_supported_is_said_to_be_one(kind: str, name: str) -> None:
    certificate = unknown_key(kind)
    sentence = f"keys of this kind ({name}) are not supported"
    algorithm = der.sequence(der.oid(kind))
    info = signers.SignerInfo(certificate.issuer_and_serial, "sha256", b"", algorithm, b"x")
    found = signers.check(info, [certificate], Covered(lambda: iter([MAIL])))
    assert (found.problem, found.checked) == (sentence, False)
    with pytest.raises(UsageError, match="not supported"):
        intake.read(certificate.der)
    with pytest.raises(UsageError, match="not supported"):
        recipients.info_for(certificate, bytes(32))


# -- headers ---------------------------------------------------------------------------------


def signed_as_is(content: bytes, *, opaque: bool = False) -> bytes:
    """Sign an entity whose header is as odd as it is."""
    content = content.replace(b"\n", b"\r\n")
    who = person("rsa")
    identity = Identity(who.key, Certificate(who.der))
    made = sign.content_signature(
        lambda: iter([content]),
        SoftwareKeys([who]),
        identity,
        sign.Options(NOW, opaque=opaque),
        Context(),
    )
    if opaque:
        cms = b"".join(made.around([content]))
        head = b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
        return head + base64.encodebytes(cms)
    return (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=b'
        b"\n\n--b\n" + content + b"\n--b\nContent-Type: application/pkcs7-signature\n"
        b"Content-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(made.before + made.after)
        + b"--b--\n"
    )


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/plain; name=my file.txt\n",
        b"Content-Type: multipart/mixed; boundary=a b\n",
        b"Content-Type: text/plain; charset=a; charset=b\n",
        b"Content-Type: text/plain\nContent-Type: text/html\n",
        b"this is no header\n",
    ],
)
def test_an_odd_header_inside_does_not_hide_the_signature(head: bytes, opaque: bool) -> None:
    mail = b"From: alice@example.org\n" + signed_as_is(head + b"\nHello\n", opaque=opaque)
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()
    assert "what is inside is odd" in report.remarks[0]
    changed = verify.message(region(mail.replace(b"Hello", b"Hallo")), judge()).report
    assert opaque or not changed.ok


def test_a_broken_signature_inside_a_good_one_is_a_problem() -> None:
    inner = b"Content-Type: application/pkcs7-mime\n\nthis is no CMS\n"
    mail = b"From: alice@example.org\n" + signed_as_is(inner)
    report = verify.message(region(mail), judge()).report
    assert report.signatures[0].ok
    assert not report.ok
    assert "inside the signature is another one" in report.problems[0]


# -- names -----------------------------------------------------------------------------------


def respelled(name: bytes) -> bytes:
    """Return a Name with its UTF8String written as a PrintableString in other letters."""
    at = name.index(b"\x0c")
    length = name[at + 1]
    text = name[at + 2 : at + 2 + length]
    return name[:at] + bytes((0x13, length)) + text.upper() + name[at + 2 + length :]


def test_a_signer_is_found_by_a_name_in_other_spelling() -> None:
    who = person("rsa")
    certificate = Certificate(who.der)
    mail = signed_mail(MAIL, who, opaque=True)
    cms = base64.b64decode(mail.partition(b"\n\n")[2])
    other = respelled(certificate.issuer_der)
    assert other != certificate.issuer_der
    info = signers.read(Memory(cms)).infos[0]
    assert info.identifier == certificate.issuer_and_serial
    renamed = der.sequence(other, certificate.serial_der)
    assert certificate.is_named_by(renamed)
    assert not certificate.is_named_by(der.sequence(other, der.integer(1)))
    whole = cms.replace(info.identifier, renamed)
    assert whole.count(renamed) == 1
    head = mail.partition(b"\n\n")[0]
    report = verify.message(region(head + b"\n\n" + base64.encodebytes(whole)), judge()).report
    assert report.ok, report.text()


def for_ours(info: bytes, *people: Person) -> recipients.Recipient | Nobody:
    return recipients.find([info], [(p.key, Certificate(p.der)) for p in people])


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_a_recipient_is_found_by_a_name_in_other_spelling(kind: str) -> None:
    certificate = Certificate(person(kind).der)
    info = recipients.info_for(certificate, bytes(32))
    other = respelled(certificate.issuer_der)
    assert len(other) == len(certificate.issuer_der)
    found = for_ours(info.replace(certificate.issuer_der, other), person(kind))
    assert isinstance(found, recipients.Recipient)


def test_who_is_meant_is_said_and_a_remedy() -> None:
    for kind in ("rsa", "p256"):
        certificate = Certificate(person(kind).der)
        found = for_ours(recipients.info_for(certificate, bytes(32)), person("p384"))
        assert isinstance(found, Nobody)
        assert "not encrypted for any of your keys" in found.why
        assert f"certificate {certificate.serial:X} of" in found.why
        assert "Test Root" in found.why
        assert "`hsmagent contacts add OLD.pem`" in found.why


@pytest.mark.parametrize(
    ("kind", "old", "new", "name"),
    [
        ("p256", oids.AES_256_WRAP, "1.2.840.113549.1.9.16.3.6", "3DES key wrap"),
        ("p256", oids.DH_STD_SHA256KDF, "1.2.840.113549.1.9.16.3.19", "ECDH with HKDF"),
        ("rsa", oids.RSA_ENCRYPTION, "1.2.3.4", "1.2.3.4"),
    ],
)
def test_a_way_of_wrapping_that_is_not_supported_is_named(
    kind: str, old: str, new: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = der.oid
    monkeypatch.setattr(der, "oid", lambda one: plain(new if one == old else one))
    info = recipients.info_for(Certificate(person(kind).der), bytes(32))
    monkeypatch.undo()
    found = for_ours(info, person(kind))
    assert isinstance(found, Nobody)
    assert found.why == (
        f"the message is encrypted for your key, but in a way that is not supported ({name})"
    )


# -- signatures ------------------------------------------------------------------------------


def check(who: Person, attributes: bytes, algorithm: bytes, signature: bytes) -> signers.Signer:
    certificate = Certificate(who.der)
    identifier, tagged = certificate.issuer_and_serial, b"\xa0" + attributes[1:]
    info = signers.SignerInfo(identifier, "sha256", tagged, algorithm, signature)
    return signers.check(info, [certificate], Covered(lambda: iter([MAIL])))


def pss(hash_name: str, mask: str, salt: int) -> bytes:
    digest = der.sequence(der.oid(oids.DIGESTS[hash_name]), der.NULL)
    inner = der.sequence(der.oid(oids.DIGESTS[mask]), der.NULL)
    parameters = (
        der.tlv(0xA0, digest),
        der.tlv(0xA1, der.sequence(der.oid(oids.ID_MGF1), inner)),
        der.tlv(0xA2, der.integer(salt)),
    )
    return der.sequence(der.oid(oids.ID_RSASSA_PSS), der.sequence(*parameters))


def attributes_of(who: Person) -> bytes:
    import hashlib

    digest = hashlib.sha256(MAIL).digest()
    return signed.attributes(digest, Scheme.RSA_PSS_SHA256, Certificate(who.der), NOW)


@pytest.mark.parametrize(("mask", "made"), [("sha1", hashes.SHA1), ("sha512", hashes.SHA512)])
def test_pss_with_a_mask_of_another_hash_is_checked(mask: str, made: Any) -> None:
    who = person("rsa")
    attributes = attributes_of(who)
    pad = padding.PSS(padding.MGF1(made()), 20)
    signature = who.private.sign(attributes, pad, hashes.SHA256())
    assert check(who, attributes, pss("sha256", mask, 20), signature).problem == ""
    assert "wrong" in check(who, attributes, pss("sha256", "sha256", 20), signature).problem


def test_signing_certificate_of_the_first_version_is_checked() -> None:
    who, other = person("rsa"), person("p256")
    kinds = {
        oids.ID_CONTENT_TYPE: der.oid(oids.ID_DATA),
        oids.ID_MESSAGE_DIGEST: der.octets(hashlib.sha256(MAIL).digest()),
    }
    rsa_sha256 = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL)
    for named, why in ((who, ""), (other, "it was made for another certificate")):
        digest = hashlib.sha1(named.der).digest()
        first = der.sequence(der.sequence(der.sequence(der.octets(digest))))
        every = {**kinds, oids.ID_AA_SIGNING_CERTIFICATE: first}
        attributes = der.set_of(
            *(der.sequence(der.oid(kind), der.set_of(value)) for kind, value in every.items())
        )
        signature = who.private.sign(attributes, padding.PKCS1v15(), hashes.SHA256())
        assert check(who, attributes, rsa_sha256, signature).problem == why


def reference(digest: str, how: bytes = b"", more: bytes = b"") -> bytes:
    """Return a SigningCertificate with every optional field that names Alice's certificate."""
    named = der.octets(hashlib.new(digest, person("rsa").der).digest())
    serial = der.sequence(der.sequence(), der.integer(1000))
    policy = der.sequence(der.sequence(der.oid("1.2.3")))
    return der.sequence(der.sequence(der.sequence(how, named, serial), more), policy)


_SHA1 = der.sequence(der.oid("1.3.14.3.2.26"))
_SHA512 = der.sequence(der.oid(oids.DIGESTS["sha512"]))
_FIRST, _SECOND = oids.ID_AA_SIGNING_CERTIFICATE, oids.ID_AA_SIGNING_CERTIFICATE_V2


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (_FIRST, reference("sha1"), ""),
        (_FIRST, reference("sha256"), "it was made for another certificate"),
        (_SECOND, reference("sha256"), ""),
        (_SECOND, reference("sha512", _SHA512), ""),
        (_SECOND, reference("sha256", more=der.sequence(der.octets(b"another"))), ""),
        (_SECOND, reference("sha512"), "it was made for another certificate"),
        (_SECOND, reference("sha1", _SHA1), "it names its certificate by a digest that proves"),
        (_SECOND, der.sequence(der.sequence()), "it cannot be checked"),
        (_SECOND, reference("sha256") + der.NULL, "it cannot be checked"),
        (_SECOND, der.octets(b""), "it cannot be checked"),
    ],
)
def test_signing_certificate_is_read_whole(kind: str, value: bytes, why: str) -> None:
    who = person("rsa")
    every = {
        oids.ID_CONTENT_TYPE: der.oid(oids.ID_DATA),
        oids.ID_MESSAGE_DIGEST: der.octets(hashlib.sha256(MAIL).digest()),
        kind: value,
    }
    attributes = der.set_of(
        *(der.sequence(der.oid(each), der.set_of(one)) for each, one in every.items())
    )
    signature = who.private.sign(attributes, padding.PKCS1v15(), hashes.SHA256())
    rsa_sha256 = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL)
    found = check(who, attributes, rsa_sha256, signature)
    assert why in found.problem
    assert bool(why) is bool(found.problem)


def test_a_short_rsa_key_is_remarked_on_or_refused() -> None:
    short = root().issue("rsa", private=rsa.generate_private_key(65537, 1024))
    report = verify.message(region(signed_mail(MAIL, short)), judge()).report
    assert report.ok
    assert "the key has only 1024 bits" in report.signatures[0].remarks[0]


def test_pkcs7_bundles_are_taken_in() -> None:
    people = [person("rsa").certificate, person("p256").certificate]
    wanted = [Certificate(one.public_bytes(Encoding.DER)) for one in people]
    for encoding in (Encoding.DER, Encoding.PEM):
        bundle = pkcs7.serialize_certificates(people, encoding)
        assert set(intake.read(bundle).certificates) == set(wanted)


def test_smtp_utf8_mailbox_matches_the_from() -> None:
    text = "grün@example.org".encode()
    mailbox = x509.OtherName(
        x509.ObjectIdentifier(oids.ID_ON_SMTP_UTF8_MAILBOX), der.tlv(0x0C, text)
    )
    who = root().issue(more=[x509.SubjectAlternativeName([mailbox])])
    mail = signed_mail(MAIL.replace(b"alice@example.org", text), who, key=who.label)
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()
    assert report.sender == ("grün@example.org",)


# -- a corpus --------------------------------------------------------------------------------


def corpus() -> list[Path]:
    return sorted(p for p in VECTORS.rglob("*") if p.suffix in {".pem", ".der", ".crt", ".cer"})


def test_every_certificate_of_a_corpus_is_read_or_refused_in_one_sentence() -> None:
    """PyPI's cryptography_vectors: nearly all are read, and nothing else is raised."""
    read = [found for path in corpus() if (found := taken_in(path)) is not None]
    assert sum(read) > 500
    assert len(read) > 0.9 * len(corpus())


def taken_in(path: Path) -> int | None:
    try:
        return len(certificates.read(path.read_bytes()))
    except UsageError:
        return None


@pytest.mark.parametrize("name", ["amazon-roots.p7b", "amazon-roots.der", "isrg.pem"])
def test_pkcs7_bundles_of_the_corpus_are_read(name: str) -> None:
    assert taken_in(VECTORS.parent / "pkcs7" / name)
