"""Reading SignedData and checking its signatures (RFC 5652, sections 5.4 to 5.6)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asn1crypto import cms, tsp

from hsmagent.errors import UsageError
from hsmagent.mail import ber
from hsmagent.mail.ber import Content, Malformed
from hsmagent.mail.certificates import Certificate
from hsmagent.mail.cms import oids
from hsmagent.mail.cms.parse import load, object_identifier, open_content
from hsmagent.mail.spool import Source

MAX_SIGNERS = 16
MAX_CERTIFICATES = 100
_CERTIFICATE_MAX = 64 * 1024
_CRL_MAX = 8 * 1024 * 1024
_INFO_MAX = 256 * 1024
_GOOD_DIGESTS = ("sha224", "sha256", "sha384", "sha512")
_DIGEST_NAMES = {dotted: name for name, dotted in oids.DIGESTS.items()}


class Covered:
    """The content that a signature covers; `chunks` yields its bytes anew at each call."""

    def __init__(self, chunks: Callable[[], Iterator[bytes]]) -> None:
        self._chunks = chunks
        self._digests: dict[str, bytes] = {}

    def digest(self, name: str) -> bytes:
        """Return its digest by a hash that hashlib knows."""
        if name not in self._digests:
            state = hashlib.new(name)
            for chunk in self._chunks():
                state.update(chunk)
            self._digests[name] = state.digest()
        return self._digests[name]

    @property
    def is_set(self) -> bool:
        """Tell whether it starts as a DER SET does, as signed attributes do."""
        return next((chunk for chunk in self._chunks() if chunk), b"")[:1] == b"\x31"


@dataclass(frozen=True, slots=True)
class SignedData:
    """One SignedData. content: None when detached. certificates, crls: DER; infos: SignerInfos."""

    content: Content | None
    certificates: tuple[Certificate, ...]
    crls: tuple[bytes, ...]
    infos: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Signer:
    """What became of one SignerInfo. problem: why the signature does not hold, or ""."""

    certificate: Certificate | None
    signed_at: datetime | None
    digest: str
    problem: str
    capabilities: frozenset[str] = frozenset()


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
    certificates: list[Certificate] = []
    if reader.peek() == ber.context(0):
        reader.enter(ber.context(0), "the certificates")
        for data in reader.elements(_CERTIFICATE_MAX, MAX_CERTIFICATES, "the certificates"):
            certificates += _certificate(data)
        reader.leave("the certificates")
    crls: list[bytes] = []
    if reader.peek() == ber.context(1):
        reader.enter(ber.context(1), "the CRLs")
        crls = list(reader.elements(_CRL_MAX, MAX_CERTIFICATES, "the CRLs"))
        reader.leave("the CRLs")
    reader.enter(ber.SET, "the signers")
    infos = [
        load(cms.SignerInfo, data, "a SignerInfo")
        for data in reader.elements(_INFO_MAX, MAX_SIGNERS, "the signers")
    ]
    reader.leave("the signers")
    reader.leave("SignedData")
    return SignedData(content, tuple(certificates), tuple(crls), tuple(infos))


def check(info: Any, pool: Sequence[Certificate], content: Covered) -> Signer:
    """Check one signature over `content`."""
    certificate = next((c for c in pool if _identifies(info["sid"], c)), None)
    name = _DIGEST_NAMES.get(info["digest_algorithm"]["algorithm"].dotted, "")
    signed_at: datetime | None = None
    capabilities: frozenset[str] = frozenset()
    problem = ""
    try:
        _check_digest(name)
        attributes = _attributes(info)
        if attributes:
            _check_attributes(attributes, content.digest(name))
            signed_at = _signing_time(attributes)
            capabilities = _capabilities(attributes)
        _check_signer(info, attributes, certificate, name, content)
    except _Invalid as error:
        problem = str(error)
    return Signer(certificate, signed_at, name, problem, capabilities)


class _Invalid(Exception):
    """The signature does not hold, and why."""


def _check_digest(name: str) -> None:
    if name not in _GOOD_DIGESTS:
        raise _Invalid(f"it uses {name.upper() or 'an unknown digest'}, which proves nothing")


def _certificate(data: bytes) -> list[Certificate]:
    """Certificates that we cannot read (attribute certificates, odd ones) help nobody: skipped."""
    try:
        return [Certificate(data)]
    except UsageError:
        return []


def _identifies(sid: Any, certificate: Certificate) -> bool:
    if sid.name == "issuer_and_serial_number":
        chosen = sid.chosen
        return bool(
            chosen["serial_number"].native == certificate.serial
            and chosen["issuer"].dump() == certificate.issuer_der
        )
    return bool(sid.chosen.native == certificate.key_identifier)


def _attributes(info: Any) -> dict[str, list[Any]]:
    """Return the signed attributes by OID; each may stand once (section 5.3)."""
    found: dict[str, list[Any]] = {}
    attributes = info["signed_attrs"]
    if isinstance(attributes, cms.CMSAttributes):
        for attribute in attributes:
            kind = attribute["type"].dotted
            if kind in found:
                raise _Invalid("it has the same signed attribute twice")
            found[kind] = list(attribute["values"])
    return found


def _check_attributes(attributes: dict[str, list[Any]], digest: bytes) -> None:
    """Content type and message digest must be there, once, and match (section 11)."""
    kinds = attributes.get(oids.ID_CONTENT_TYPE, [])
    if [kind.dotted for kind in kinds] != [oids.ID_DATA]:
        raise _Invalid("its content-type attribute does not fit the content")
    digests = attributes.get(oids.ID_MESSAGE_DIGEST, [])
    if [value.native for value in digests] != [digest]:
        raise _Invalid("the content was changed after signing")


def _check_reference(attributes: dict[str, list[Any]], certificate: Certificate) -> None:
    """SigningCertificateV2, when given, must name the certificate we take (RFC 5035)."""
    for value in attributes.get(oids.ID_AA_SIGNING_CERTIFICATE_V2, []):
        first = load(tsp.SigningCertificateV2, value.dump(), "SigningCertificateV2")["certs"][0]
        name = _DIGEST_NAMES.get(first["hash_algorithm"]["algorithm"].dotted, "")
        if name not in _GOOD_DIGESTS:
            raise _Invalid("it names its certificate by a digest that proves nothing")
        if hashlib.new(name, certificate.der).digest() != first["cert_hash"].native:
            raise _Invalid("it was made for another certificate")


def _signing_time(attributes: dict[str, list[Any]]) -> datetime | None:
    values = attributes.get(oids.ID_SIGNING_TIME, [])
    native = values[0].native if len(values) == 1 else None
    return native if isinstance(native, datetime) else None


def _capabilities(attributes: dict[str, list[Any]]) -> frozenset[str]:
    """Return the OIDs of sMIMECapabilities."""
    found: set[str] = set()
    for value in attributes.get(oids.SMIME_CAPABILITIES, []):
        try:
            found |= {item["0"] for item in value.native}
        except (TypeError, KeyError, ValueError):
            continue
    return frozenset(found)


def _check_signer(
    info: Any,
    attributes: dict[str, list[Any]],
    certificate: Certificate | None,
    name: str,
    content: Covered,
) -> None:
    """Check the signature itself by the signer's certificate."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    from hsmagent.mail.cms.verify import verify

    if certificate is None:
        raise _Invalid("the signer's certificate is not there")
    _check_reference(attributes, certificate)
    # As received, but for the tag: the signature is over the SET OF (section 5.4).
    signed = b"\x31" + info["signed_attrs"].dump()[1:] if attributes else None
    if signed is None and content.is_set:
        # Else the attributes of somebody's mail could be shown as the content of another one.
        raise _Invalid("its content looks like the signed attributes of another mail")
    try:
        verify(
            spki=certificate.spki,
            algorithm=info["signature_algorithm"],
            signature=info["signature"].native,
            attributes=signed,
            digest=None if signed else content.digest(name),
            digest_name=name,
        )
    except InvalidSignature:
        raise _Invalid("the signature is wrong") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _Invalid(f"it cannot be checked: {error}") from None
