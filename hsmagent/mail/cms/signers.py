"""Reading SignedData and checking its signatures (RFC 5652, sections 5.4 to 5.6)."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from asn1crypto import algos
from cryptography.exceptions import InvalidSignature

from hsmagent.errors import UsageError
from hsmagent.mail import digest
from hsmagent.mail.cms import ber, der, fields, oids, public_keys
from hsmagent.mail.cms.ber import ASN1_ERRORS, Content, Malformed, Reader
from hsmagent.mail.cms.certificates import Certificate, readable
from hsmagent.mail.cms.parse import (
    ALGORITHM_MAX,
    algorithm,
    load,
    object_identifier,
    open_content,
)
from hsmagent.mail.cms.signature import Unsupported, verify
from hsmagent.mail.spool import Memory, Source

MAX_SIGNERS = 16
MAX_CERTIFICATES = 50
MAX_CRLS = 20
MAX_ATTRIBUTES = 100
_HEADER_MAX = 64 * 1024
_LINE = rb"[\t -~\x80-\xff]*\r?\n"
_HEADER = re.compile(rb"(?:[!-9;-~]+[ \t]*:" + _LINE + rb"(?:[\t ]" + _LINE + rb")*)+\r?\n")
_CERTIFICATE_MAX = 64 * 1024
_CRL_MAX = 8 * 1024 * 1024
_INFO_MAX = 256 * 1024
_DIGEST_MAX = 64
_GOOD_DIGESTS = ("sha224", "sha256", "sha384", "sha512")
_DIGEST_NAMES = {dotted: name for name, dotted in oids.DIGESTS.items()} | oids.OTHER_DIGESTS


class Covered:
    """The content that a signature covers; `chunks` yields its bytes anew at each call."""

    def __init__(self, chunks: Callable[[], Iterator[bytes]]) -> None:
        self._chunks = chunks
        self._digests: dict[str, bytes] = {}

    def digest(self, name: str) -> bytes:
        """Return its digest by a hash that hashlib knows."""
        if name not in self._digests:
            self._digests[name], _ = digest.of(name, self._chunks())
        return self._digests[name]

    @property
    def reads_as_mail(self) -> bool:
        """Tell whether it starts with a header, in text, that says what content it is."""
        start = b""
        for chunk in self._chunks():
            start += chunk
            if len(start) >= _HEADER_MAX:
                break
        head = _HEADER.match(start[:_HEADER_MAX])
        return head is not None and b"\ncontent-" in b"\n" + head.group().lower()


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One SignerInfo (section 5.3), its pieces as they were received.

    identifier: IssuerAndSerialNumber or [0] key identifier; attributes: the signed ones with tag
    [0], or b""; algorithm: an AlgorithmIdentifier.
    """

    identifier: bytes
    digest: str
    attributes: bytes
    algorithm: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedData:
    """One SignedData. content: None when detached. crls: DER. unreadable: how many certificates."""

    content: Content | None
    certificates: tuple[Certificate, ...]
    crls: tuple[bytes, ...]
    infos: tuple[SignerInfo, ...]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Signer:
    """What a SignerInfo was found to be. problem: why the signature does not hold, or "".

    checked: False if it could not be checked at all. remark: what to say of one that holds, or "".
    """

    certificate: Certificate | None
    signed_at: datetime | None
    digest: str
    problem: str
    capabilities: frozenset[str] = frozenset()
    checked: bool = True
    remark: str = ""


def read(source: Source) -> SignedData:
    """Read a ContentInfo that holds SignedData; Malformed or UsageError otherwise."""
    kind, reader = open_content(source)
    if kind != oids.ID_SIGNED_DATA:
        raise UsageError("this is not signed data")
    reader.enter(ber.SEQUENCE, "SignedData")
    reader.element(16, "the version", ber.INTEGER)
    reader.element(4096, "the digest algorithms", ber.SET)
    reader.enter(ber.SEQUENCE, "the signed content")
    if object_identifier(reader, "the content type") != oids.ID_DATA:
        raise Malformed("what is signed is not mail content")
    content = None
    if reader.peek() is not None:
        reader.enter(ber.context(0), "the signed content")
        content = reader.content(ber.OCTET_STRING, "the signed content")
        reader.leave("the signed content")
    reader.leave("the signed content")
    certificates = _optional(reader, 0, _CERTIFICATE_MAX, MAX_CERTIFICATES, "the certificates")
    revocations = _optional(reader, 1, _CRL_MAX, MAX_CRLS, "the CRLs")
    reader.enter(ber.SET, "the signers")
    infos = [_signer_info(data) for data in reader.elements(_INFO_MAX, MAX_SIGNERS, "the signers")]
    reader.leave("the signers")
    reader.leave("SignedData")
    # Attribute certificates, for one, cannot be read.
    usable = tuple(one for one in readable(certificates) if one.can_be_validated)
    # What is tagged is revocation information of another kind (RFC 5940).
    crls = tuple(one for one in revocations if one[0] == ber.SEQUENCE)
    return SignedData(content, usable, crls, tuple(infos), len(certificates) - len(usable))


def check(
    info: SignerInfo, pool: Sequence[Certificate], content: Covered, unreadable: int = 0
) -> Signer:
    """Check one signature over `content`; unreadable: see SignedData."""
    certificate = next((c for c in pool if c.is_named_by(info.identifier)), None)
    signed_at: datetime | None = None
    capabilities: frozenset[str] = frozenset()
    problem, checked, remark = "", True, ""
    try:
        if certificate is None:
            raise Unsupported(_MISSING if not unreadable else _UNREADABLE)
        _check_digest(info.digest)
        attributes = _attributes(info)
        if attributes:
            _check_attributes(attributes, content.digest(info.digest))
            signed_at = _signing_time(attributes)
            capabilities = _capabilities(attributes)
        _check_signer(info, attributes, certificate, content)
        remark = public_keys.weakness(public_keys.load(certificate.spki))
    except _Invalid as error:
        problem = str(error)
    except UsageError as error:
        problem, checked = str(error), False
    return Signer(certificate, signed_at, info.digest, problem, capabilities, checked, remark)


_MISSING = "the signer's certificate is not there; `hsmagent contacts add` takes it"
_UNREADABLE = "the signer's certificate is not among those in the message that can be read"


def named_signer(data: SignedData) -> Certificate | None:
    """Return the certificate in the message that its first signature names."""
    first = data.infos[0].identifier if data.infos else b"\0"
    return next((c for c in data.certificates if c.is_named_by(first)), None)


class _Invalid(Exception):
    """The signature does not hold, and why."""


def _optional(reader: Reader, number: int, limit: int, many: int, what: str) -> list[bytes]:
    """Take the elements of an optional `[number]`."""
    if reader.peek() != ber.context(number):
        return []
    reader.enter(ber.context(number), what)
    found = list(reader.elements(limit, many, what))
    reader.leave(what)
    return found


def _check_digest(name: str) -> None:
    if name in {"sha1", "MD5"}:
        raise Unsupported(f"it uses {name.upper()}, which proves nothing")
    if name not in _GOOD_DIGESTS:
        raise Unsupported(f"its digest ({name}) is not supported")


def _signer_info(data: bytes) -> SignerInfo:
    what = "a SignerInfo"
    reader = Reader(Memory(data))
    reader.enter(ber.SEQUENCE, what)
    reader.element(16, what, ber.INTEGER)
    identifier = reader.element(_INFO_MAX, what)
    digest, _ = algorithm(reader, what)
    attributes = b""
    if reader.peek() == ber.context(0):
        attributes = reader.element(_INFO_MAX, what)
    how = reader.element(ALGORITHM_MAX, what, ber.SEQUENCE)
    signature = reader.octets(_INFO_MAX, what)
    if reader.peek() == ber.context(1):
        reader.element(_INFO_MAX, what)
    reader.leave(what)
    return SignerInfo(identifier, _DIGEST_NAMES.get(digest, digest), attributes, how, signature)


Attributes = dict[str, list[bytes]]
"""The values of signed attributes, each a whole DER element, by OID."""


def _attributes(info: SignerInfo) -> Attributes:
    """Read the signed attributes; each may stand once (section 5.3)."""
    found: Attributes = {}
    if not info.attributes:
        return found
    what = "the signed attributes"
    reader = Reader(Memory(info.attributes))
    reader.enter(ber.context(0), what)
    for data in reader.elements(_INFO_MAX, MAX_ATTRIBUTES, what):
        inner = Reader(Memory(data))
        inner.enter(ber.SEQUENCE, what)
        kind = object_identifier(inner, what)
        inner.enter(ber.SET, what)
        if kind in found:
            raise _Invalid("it has the same signed attribute twice")
        found[kind] = list(inner.elements(_INFO_MAX, MAX_ATTRIBUTES, what))
        inner.leave(what)
        inner.leave(what)
    reader.leave(what)
    return found


def _check_attributes(attributes: Attributes, digest: bytes) -> None:
    """Content type and message digest must be there, once, and match (section 11)."""
    if attributes.get(oids.ID_CONTENT_TYPE) != [der.oid(oids.ID_DATA)]:
        raise _Invalid("its content-type attribute does not fit the content")
    if attributes.get(oids.ID_MESSAGE_DIGEST) != [der.octets(digest)]:
        raise _Invalid("the content was changed after signing")


def _check_reference(attributes: Attributes, certificate: Certificate) -> None:
    """Raise _Invalid unless SigningCertificate, of either version, names this one (RFC 5035).

    SHA-1 is enough here: nobody can make another certificate with the SHA-1 of a given one.
    """
    for value in attributes.get(oids.ID_AA_SIGNING_CERTIFICATE, []):
        _, digest = _first_named(value, "SigningCertificate")
        if hashlib.sha1(certificate.der).digest() != digest:  # noqa: S324
            raise _Invalid("it was made for another certificate")
    for value in attributes.get(oids.ID_AA_SIGNING_CERTIFICATE_V2, []):
        name, digest = _first_named(value, "SigningCertificateV2")
        if name not in _GOOD_DIGESTS:
            raise Unsupported("it names its certificate by a digest that proves nothing")
        if hashlib.new(name, certificate.der).digest() != digest:
            raise _Invalid("it was made for another certificate")


def _first_named(value: bytes, what: str) -> tuple[str, bytes]:
    """Return by which digest, and by what, a SigningCertificate names the signer's certificate.

    ESSCertIDv2 (RFC 5035, section 4) may say the digest's algorithm, where it is not SHA-256.
    """
    reader = Reader(Memory(value))
    for _ in ("SigningCertificate", "certs", "ESSCertID"):
        reader.enter(ber.SEQUENCE, what)
    name = "sha256"
    if reader.peek() == ber.SEQUENCE:
        dotted, _ = algorithm(reader, what)
        name = _DIGEST_NAMES.get(dotted, "")
    found = reader.octets(_DIGEST_MAX, what)
    for _ in ("issuerSerial", "further certificates", "policies"):
        for _ in reader.elements(_INFO_MAX, MAX_ATTRIBUTES, what):
            pass
        reader.leave(what)
    if reader.peek() is not None:
        raise Malformed(f"{what} with something after it")
    return name, found


def _signing_time(attributes: Attributes) -> datetime | None:
    values = attributes.get(oids.ID_SIGNING_TIME, [])
    if len(values) != 1:
        return None
    try:
        return fields.moment(values[0])
    except (ValueError, OverflowError):
        raise Unsupported("its signing time is not one") from None


def _capabilities(attributes: Attributes) -> frozenset[str]:
    """Return the OIDs of sMIMECapabilities; what cannot be read is no capability."""
    found: set[str] = set()
    for value in attributes.get(oids.SMIME_CAPABILITIES, []):
        reader = Reader(Memory(value))
        try:
            reader.enter(ber.SEQUENCE, "sMIMECapabilities")
            for data in reader.elements(ALGORITHM_MAX, MAX_ATTRIBUTES, "sMIMECapabilities"):
                found.add(algorithm(Reader(Memory(data)), "a capability")[0])
        except Malformed:
            continue
    return frozenset(found)


def _check_signer(
    info: SignerInfo, attributes: Attributes, certificate: Certificate, content: Covered
) -> None:
    """Check the signature itself by the signer's certificate."""
    # As received, but for the tag: the signature is over the SET OF (section 5.4).
    signed = b"\x31" + info.attributes[1:] if attributes else None
    if signed is None and not content.reads_as_mail:
        # Else what the key signed for another purpose could be shown as a signed mail: the signed
        # attributes of a mail, or an ssh login.
        raise _Invalid("it has no signed attributes, and its content does not read as mail")
    try:
        _check_reference(attributes, certificate)
        verify(
            spki=certificate.spki,
            algorithm=load(algos.SignedDigestAlgorithm, info.algorithm, "its algorithm"),
            signature=info.signature,
            attributes=signed,
            digest=None if signed else content.digest(info.digest),
            digest_name=info.digest,
        )
    except InvalidSignature:
        raise _Invalid("the signature is wrong") from None
    except (Malformed, *ASN1_ERRORS):
        raise Unsupported("it cannot be checked: one of its fields cannot be read") from None
