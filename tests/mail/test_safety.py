"""What a hostile mail may try: each line of "Safety" in docs/mail.md has its test here."""

import base64
import hashlib
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsmagent.cli import openssl_args
from hsmagent.cli.openssl_smime import _extra_header
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import decrypt, mime, sign, spool, verify
from hsmagent.mail.cms import ber, content, der, enveloped, oids, recipients, signed, signers
from hsmagent.mail.cms.ber import MAX_DEPTH, Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.cms.signers import Covered
from hsmagent.mail.keys import Context
from hsmagent.mail.spool import Memory, Region, Spool
from hsmagent.mail.trust import Anchors, Trust
from hsmagent.model import Scheme
from tests.parts.mail.people import judge, person, region, root
from tests.parts.mail.people import signed as signed_mail
from tests.parts.mail.pki import NOW, SoftwareKeys, authority, make_private

BODY = b"Content-Type: text/plain\n\nHello\n"
MESSAGE = b"From: alice@example.org\nSubject: Hi\n" + BODY
DETACHED = (
    b"From: alice@example.org\nContent-Type: multipart/signed; boundary=x;"
    b' protocol="application/pkcs7-signature"\n\n--x\n'
)
SIGNATURE = b"Content-Type: application/pkcs7-signature\nContent-Transfer-Encoding: base64\n\n"


def opaque(cms: bytes) -> bytes:
    head = b"From: alice@example.org\nContent-Type: application/pkcs7-mime\n"
    return head + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(cms)


def open_mail(mail: bytes, kind: str = "rsa") -> bytes:
    out = Spool()
    decrypt.message(region(mail), out, SoftwareKeys([person(kind)]), decrypt.Options())
    return out.read_at(0, out.size)


# -- forged signatures -----------------------------------------------------------------------


def test_a_signed_data_without_signers_proves_nothing() -> None:
    before, after = signed.wrap(b"", Scheme.RSA_PKCS1_SHA256, [], len(BODY))
    with pytest.raises(Malformed, match="without any signature"):
        verify.message(region(opaque(before + BODY + after)), judge())


def forged(*attributes: bytes) -> str:
    """Sign a set of attributes with a real key; return why it does not hold."""
    who, scheme = person("rsa"), Scheme.RSA_PKCS1_SHA256
    signed_set = der.set_of(*attributes)
    signature = SoftwareKeys([who]).sign_attributes(who.key, scheme, signed_set, Context())
    certificate = Certificate(who.der)
    info = signed.signer_info(certificate, scheme, signed_set, signature)
    before, after = signed.wrap(info, scheme, [certificate], None)
    data = signers.read(Memory(before + after))
    return signers.check(data.infos[0], data.certificates, Covered(lambda: iter([BODY]))).problem


def attribute(kind: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(kind), der.tlv(0x31, *values))


def test_content_type_and_digest_attributes_must_match() -> None:
    kind = attribute(oids.ID_CONTENT_TYPE, der.oid(oids.ID_DATA))
    digest = attribute(oids.ID_MESSAGE_DIGEST, der.octets(hashlib.sha256(BODY).digest()))
    wrong = attribute(oids.ID_MESSAGE_DIGEST, der.octets(hashlib.sha256(b"other").digest()))
    other = attribute(oids.ID_CONTENT_TYPE, der.oid(oids.ID_SIGNED_DATA))
    assert forged(kind, digest) == ""
    assert "content-type" in forged(digest)
    assert "content-type" in forged(other, digest)
    assert "changed" in forged(kind)
    assert "changed" in forged(kind, wrong)
    assert "twice" in forged(kind, digest, wrong)
    assert "content-type" in forged(
        attribute(oids.ID_CONTENT_TYPE, der.oid(oids.ID_DATA), der.oid(oids.ID_DATA)), digest
    )


def test_odd_values_in_a_signer_info_are_problems_and_nothing_worse() -> None:
    good = [
        attribute(oids.ID_CONTENT_TYPE, der.oid(oids.ID_DATA)),
        attribute(oids.ID_MESSAGE_DIGEST, der.octets(hashlib.sha256(BODY).digest())),
    ]
    for moment in (b"00000101000000Z", b"00010101000000+2359", b"99991231235959-2359"):
        when = attribute(oids.ID_SIGNING_TIME, der.tlv(0x18, moment))
        assert forged(*good, when) == "its signing time is not one"
    nobody = attribute(oids.ID_AA_SIGNING_CERTIFICATE_V2, der.sequence(der.sequence()))
    assert "cannot be checked" in forged(*good, nobody)


@pytest.mark.parametrize("salt", [2**31, 2**70])
def test_a_salt_of_any_length_is_a_problem_only(salt: int) -> None:
    certificate = Certificate(person("rsa").der)
    digest = der.sequence(der.oid(oids.DIGESTS["sha256"]), der.NULL)
    parameters = der.sequence(
        der.tlv(0xA0, digest),
        der.tlv(0xA1, der.sequence(der.oid(oids.ID_MGF1), digest)),
        der.tlv(0xA2, der.integer(salt)),
    )
    pss = der.sequence(der.oid(oids.ID_RSASSA_PSS), parameters)
    info = signers.SignerInfo(certificate.issuer_and_serial, "sha256", b"", pss, bytes(256))
    found = signers.check(info, [certificate], Covered(lambda: iter([BODY])))
    assert found.problem == "the signature is wrong"


@pytest.mark.parametrize("until", [b"00000101000000Z", b"9999123123-2359"])
def test_a_certificate_until_no_time_is_unreadable(until: bytes) -> None:
    late = root().issue("p256", end=datetime(2055, 1, 1, tzinfo=UTC)).der
    with pytest.raises(UsageError, match="a certificate that cannot be read"):
        Certificate(late.replace(b"20550101000000Z", until))


def test_another_certificate_for_the_same_key_is_noticed() -> None:
    who = person("rsa")
    other = root().issue("rsa", "Mallory", mail=("mallory@evil.test",), private=who.private)
    mail = signed_mail(MESSAGE, who, opaque=True)
    cms = base64.b64decode(mail.partition(b"\n\n")[2])
    data = signers.read(Memory(cms))
    # The name and serial in the SignerInfo are not signed; SigningCertificateV2 is.
    forged_info = signers.SignerInfo(
        Certificate(other.der).issuer_and_serial,
        data.infos[0].digest,
        data.infos[0].attributes,
        data.infos[0].algorithm,
        data.infos[0].signature,
    )
    assert data.content is not None
    found = signers.check(forged_info, [Certificate(other.der)], Covered(data.content.chunks))
    assert found.problem == "it was made for another certificate"


def test_signed_attributes_are_no_content() -> None:
    """A signature over attributes must not pass as one over a content that equals them."""
    mail = signed_mail(MESSAGE, person("rsa"), opaque=True)
    cms = base64.b64decode(mail.partition(b"\n\n")[2])
    info = signers.read(Memory(cms)).infos[0]
    attributes = b"\x31" + info.attributes[1:]
    bare = signers.SignerInfo(info.identifier, info.digest, b"", info.algorithm, info.signature)
    known = [Certificate(person("rsa").der)]
    found = signers.check(bare, known, Covered(lambda: iter([attributes])))
    assert "does not read as mail" in found.problem


def test_micalg_is_derived_and_never_trusted() -> None:
    mail = signed_mail(MESSAGE, person("p384"))
    assert b"micalg=sha-384;" in mail
    assert verify.message(region(mail.replace(b"sha-384", b"md5")), judge()).report.ok


def test_a_chain_of_many_alike_names_takes_no_time() -> None:
    """Eight certificates that name each other keep a path builder busy for a minute."""
    first = authority("Loop")
    leaf = first.issue("p256")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Loop")])
    pool = []
    for serial in range(30):
        private = make_private("p256")
        builder = x509.CertificateBuilder(subject, subject, private.public_key(), serial + 2)
        builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=9))
        made = builder.sign(private, hashes.SHA256())
        pool.append(Certificate(made.public_bytes(Encoding.DER)))
    started = time.process_time()
    why = Trust(Anchors((Certificate(root().der),)), NOW, pool).judge(Certificate(leaf.der)).problem
    assert "no chain" in why
    assert time.process_time() - started < 5


# -- structure -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (b"one\n--x\n" + SIGNATURE + b"\n--x\n" + SIGNATURE + b"\n--x--\n", "3 parts"),
        (b"one\n--x--\n", "1 parts"),
        (b"one\n--x\n" + SIGNATURE, "closing boundary"),
        (b"one\n--x\nContent-Type: text/plain\n\nno\n--x--\n", "second part"),
    ],
)
def test_a_multipart_signed_has_two_parts(parts: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        verify.message(region(DETACHED + parts), judge())


def test_a_header_field_twice_is_refused() -> None:
    mail = signed_mail(MESSAGE, person("rsa"))
    with pytest.raises(Malformed, match="2 Content-Type"):
        verify.message(region(b"Content-Type: text/plain\n" + mail), judge())


def test_an_encrypted_part_among_others_is_not_opened() -> None:
    """EFAIL joins a decrypted part with HTML around it: only a whole message is decrypted."""
    certificate = Certificate(person("rsa").der)
    cms = b"".join(enveloped.build(lambda: iter([BODY]), [certificate], gcm=False))
    part = opaque(cms).partition(b"\n")[2]
    mail = b'From: a@b\nContent-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/html'
    mail += b'\n\n<img src="http://evil.test/\n--x\n' + part + b"\n--x\n\n>\n--x--\n"
    with pytest.raises(HsmAgentError, match="not encrypted"):
        open_mail(mail)


def test_cbc_is_said_to_be_unauthenticated_and_gcm_is_not() -> None:
    certificate = Certificate(person("rsa").der)
    for gcm in (False, True):
        cms = b"".join(enveloped.build(lambda: iter([BODY]), [certificate], gcm=gcm))
        done = decrypt.message(
            region(opaque(cms)), Spool(), SoftwareKeys([person("rsa")]), decrypt.Options()
        )
        assert bool(done.warnings) is not gcm


@pytest.mark.parametrize("gcm", [False, True])
def test_nothing_is_written_before_the_last_byte_is_checked(gcm: bool) -> None:
    certificate = Certificate(person("rsa").der)
    big = BODY + b"x" * 3_000_000
    cms = bytearray(b"".join(enveloped.build(lambda: iter([big]), [certificate], gcm=gcm)))
    cms[-5 if gcm else -17] ^= 1  # with CBC, the padding's last byte: wrong for certain
    out = Spool()
    with pytest.raises(Undecryptable):
        decrypt.message(
            region(opaque(bytes(cms))), out, SoftwareKeys([person("rsa")]), decrypt.Options()
        )
    assert out.size == 0


def gcm_parameters(nonce: int, tag: int | None) -> bytes:
    length = b"" if tag is None else der.integer(tag)
    return der.sequence(der.octets(bytes(nonce)), length)


@pytest.mark.parametrize(("nonce", "tag"), [(12, 8), (12, 4), (12, 0), (12, 17), (8, 16), (0, 16)])
def test_gcm_with_a_short_tag_or_an_odd_nonce_is_refused(nonce: int, tag: int) -> None:
    with pytest.raises(Malformed, match="unusual length"):
        content.read(oids.AES_256_GCM, gcm_parameters(nonce, tag), authenticated=True)


def test_a_gcm_tag_is_not_taken_into_memory_before_its_length_is_known() -> None:
    made = b"".join(
        enveloped.build(lambda: iter([BODY]), [Certificate(person("rsa").der)], gcm=True)
    )
    reader = ber.Reader(Memory(made))
    reader.enter(ber.SEQUENCE, "it")
    reader.element(64, "its type")
    reader.enter(ber.context(0), "its content")
    auth_enveloped = reader.element(10_000, "AuthEnvelopedData")
    inner = auth_enveloped[4:-18]  # without its header, and the tag at its end
    long = der.sequence(inner, der.octets(bytes(1_000_000)))
    cms = der.sequence(der.oid(oids.ID_CT_AUTH_ENVELOPED_DATA), der.tlv(0xA0, long))
    with pytest.raises(Malformed, match="the authentication tag has 1000000 bytes"):
        enveloped.read(Memory(cms), [])


def test_gcm_tags_of_twelve_bytes_and_more_are_read() -> None:
    for tag, length in ((None, 12), (12, 12), (16, 16)):
        parameters = gcm_parameters(12, tag)
        assert content.read(oids.AES_256_GCM, parameters, authenticated=True).tag == length


def test_auth_enveloped_takes_aead_ciphers_only() -> None:
    """Else GCM's keystream could be had through CBC's padding, or the other way round."""
    with pytest.raises(Malformed, match="not supported"):
        content.read(oids.AES_256_CBC, der.octets(bytes(16)), authenticated=True)
    with pytest.raises(Malformed, match="not supported"):
        content.read(oids.AES_256_GCM, gcm_parameters(12, 16), authenticated=False)


# -- bombs -----------------------------------------------------------------------------------


def test_layers_are_bounded() -> None:
    mail = MESSAGE
    for _ in range(8):
        mail = signed_mail(mail, person("p256"), sender="alice@example.org")
    with pytest.raises(Malformed, match="layers"):
        verify.message(region(mail), judge())


def test_ber_nesting_is_bounded() -> None:
    bomb = b"\x30\x80" * 100_000
    with pytest.raises(Malformed):
        verify.message(region(opaque(bomb)), judge())
    head = b"\x30\x80" + der.oid(oids.ID_ENVELOPED_DATA) + b"\xa0\x80\x30\x80"
    with pytest.raises(Malformed, match="nested too deeply"):
        open_mail(opaque(head + der.integer(0) + b"\x31\x80" + bomb))
    inner = der.sequence()
    for _ in range(MAX_DEPTH * 40):
        inner = der.sequence(inner)
    with pytest.raises(HsmAgentError):
        Certificate(inner)


def test_mime_nesting_is_bounded() -> None:
    nested = b"8bit \xff\n"
    for _ in range(40):
        nested = b"Content-Type: message/rfc822\n\n" + nested
    with pytest.raises(Malformed, match="nested more than"):
        sign.message(region(b"From: alice@example.org\n" + nested), Spool(),
                     SoftwareKeys([person("rsa")]), sign.Options(NOW))  # fmt: skip


def test_a_hundred_thousand_recipients() -> None:
    info = recipients.info_for(Certificate(person("p256").der), bytes(32))
    started = time.process_time()
    body = der.integer(0) + der.tlv(0x31, info * 100_000)
    cms = der.sequence(der.oid(oids.ID_ENVELOPED_DATA), der.tlv(0xA0, der.sequence(body)))
    with pytest.raises(Malformed, match="too many of the recipients"):
        open_mail(opaque(cms))
    assert time.process_time() - started < 10


def test_a_gigabyte_is_refused_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        """A file without an end."""

        def __init__(self) -> None:
            self.read_bytes = 0

        def read(self, size: int) -> bytes:
            self.read_bytes += size
            return bytes(size)

    monkeypatch.setattr(spool, "MAX_MESSAGE", 8 << 20)
    file = Endless()
    with Spool() as kept, pytest.raises(UsageError, match="larger than 8 MiB"):
        spool.fill(kept, file)  # type: ignore[arg-type]
    assert file.read_bytes < 9 << 20


def test_content_in_a_million_pieces_is_bounded() -> None:
    pieces = b"\x24\x80" + b"\x04\x00" * 1_100_000 + b"\0\0"
    head = der.integer(1) + der.tlv(0x31)
    inside = der.oid(oids.ID_DATA) + b"\xa0\x80" + pieces + b"\0\0"
    body = b"\x30\x80" + head + b"\x30\x80" + inside + b"\0\0" + der.tlv(0x31) + b"\0\0"
    cms = b"\x30\x80" + der.oid(oids.ID_SIGNED_DATA) + b"\xa0\x80" + body + b"\0\0\0\0"
    with pytest.raises(Malformed, match="too many pieces"):
        verify.message(region(opaque(cms)), judge())


def test_compressed_data_is_not_unpacked() -> None:
    cms = der.sequence(der.oid("1.2.840.113549.1.9.16.1.9"), der.tlv(0xA0, der.sequence()))
    assert not verify.message(region(opaque(cms)), judge()).report.ok
    with pytest.raises(HsmAgentError, match="not encrypted"):
        open_mail(opaque(cms))


# -- what becomes a header -------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\nBcc: eve@example.org", "a\r", "a\0b"])
def test_a_line_break_does_not_become_a_header(text: str) -> None:
    arguments = openssl_args.parse(["smime", "-sign", "-subject", text])
    with pytest.raises(UsageError, match="line break"):
        _extra_header(arguments)


def test_header_fields_inside_stay_inside() -> None:
    """A From inside the encryption must not replace the one outside."""
    certificate = Certificate(person("rsa").der)
    inner = b"From: boss@example.org\nSubject: Pay\n" + BODY
    cms = b"".join(enveloped.build(lambda: iter([inner]), [certificate], gcm=True))
    plain = open_mail(opaque(cms))
    assert mime.read(region(plain)).all("from") == ["alice@example.org"]
    assert b"boss@" not in plain


def test_an_expired_certificate_signs_only_when_told_to() -> None:
    old = root().issue("p256", end=NOW - timedelta(hours=1))
    with pytest.raises(UsageError, match=r"expired on .*--allow-expired"):
        signed_mail(MESSAGE, old)
    out = Spool()
    options = sign.Options(NOW, allow_expired=True)
    warnings = sign.message(region(MESSAGE), out, SoftwareKeys([old]), options)
    assert "expired on" in warnings[0]
    soon = root().issue("p256", end=NOW + timedelta(days=29))
    warnings = sign.message(region(MESSAGE), Spool(), SoftwareKeys([soon]), sign.Options(NOW))
    assert "expires on" in warnings[0]


def test_the_certificate_valid_longest_signs() -> None:
    short = root().issue("p256", "Short", end=NOW + timedelta(days=40))
    long = root().issue("p256", "Long", end=NOW + timedelta(days=90))
    out = Spool()
    sign.message(region(MESSAGE), out, SoftwareKeys([short, long]), sign.Options(NOW))
    found = verify.message(Region.whole(out), judge()).report.signatures[0]
    assert found.who is not None
    assert found.who.name == "Long"
