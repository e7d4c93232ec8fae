"""X.509 certificates as mail needs them: who, by which address, for which key, until when."""

import binascii
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from asn1crypto import x509

from hsmagent.errors import UsageError
from hsmagent.mail.address import normal
from hsmagent.mail.cms import bundle, der, names, oids
from hsmagent.mail.cms.ber import ASN1_ERRORS, Malformed
from hsmagent.mail.cms.names import Readable
from hsmagent.mail.cms.parse import key_identifier, public_key
from hsmagent.model import Key, printable

MAX_CHAIN = 8
_PEM = re.compile(
    rb"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE|PKCS7|CMS)-----([^-]+)-----END ",
)


class Certificate:
    """One certificate; equal when its DER is. What cannot be read raises UsageError.

    parsed: as the path validation reads it.
    """

    def __init__(self, data: bytes) -> None:
        self.der = data
        try:
            # What is used is read now: asn1crypto is lazy, and a foreign certificate that breaks
            # later would break something that did not expect it. The rest may be as odd as it is.
            self.parsed: Any = Readable.load(data, strict=True)
            self.not_before = utc(self.parsed.not_valid_before)
            self.not_after = utc(self.parsed.not_valid_after)
            self.issuer, self.subject = names.key(self.issuer_der), names.key(self.subject_der)
            self.name, self.issuer_name = self._names()
            _ = self.serial, self.spki, self.key_identifier, self.key_usage, self.purposes
            _ = self.addresses, self.parsed.ca, self.parsed.critical_extensions
        except (Malformed, *ASN1_ERRORS):
            raise UsageError("a certificate that cannot be read") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)

    @cached_property
    def serial(self) -> int:
        """The serial number."""
        return int(self.parsed.serial_number)

    @cached_property
    def serial_der(self) -> bytes:
        """The serial number as it stands; negative ones exist, though they should not."""
        return bytes(self.parsed["tbs_certificate"]["serial_number"].dump())

    @cached_property
    def issuer_der(self) -> bytes:
        """The issuer's Name, as it stands in the certificate."""
        return bytes(self.parsed.issuer.dump())

    @cached_property
    def issuer_and_serial(self) -> bytes:
        """The IssuerAndSerialNumber (RFC 5652, section 10.2.4) by which messages name it."""
        return der.sequence(self.issuer_der, self.serial_der)

    def is_named_by(self, issuer_and_serial: bytes) -> bool:
        """Whether an IssuerAndSerialNumber means it, the issuer's name compared as names are."""
        if issuer_and_serial == self.issuer_and_serial:
            return True
        try:
            issuer, serial = names.issuer_and_serial(issuer_and_serial)
            return serial == self.serial and names.key(issuer) == self.issuer
        except (Malformed, *ASN1_ERRORS):
            return False

    @cached_property
    def subject_der(self) -> bytes:
        """The subject's Name."""
        return bytes(self.parsed.subject.dump())

    @cached_property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo."""
        return bytes(self.parsed.public_key.dump())

    @cached_property
    def key_type(self) -> str:
        """The kind of its key: "RSA", "EC", "Ed25519", or an OID."""
        kind, _ = public_key(self.spki)
        return oids.KEY_TYPES.get(kind, kind)

    @cached_property
    def key_identifier(self) -> bytes:
        """The SubjectKeyIdentifier, or what RFC 5280 would have it be."""
        given = self.parsed.key_identifier_value
        return bytes(given.native if given else key_identifier(self.spki))

    @cached_property
    def key_usage(self) -> frozenset[str]:
        """The names of the KeyUsage bits; all of them when the extension is not there."""
        value = self.parsed.key_usage_value
        everything = x509.KeyUsage._map.values()  # noqa: SLF001 (asn1crypto has no other list)
        return frozenset(everything if value is None else value.native)

    @cached_property
    def purposes(self) -> frozenset[str] | None:
        """The extended key usages, known ones by name; None when the extension is not there."""
        value = self.parsed.extended_key_usage_value
        return None if value is None else frozenset(value.native)

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        """Mail addresses: those of the SAN, and only without any the subject's emailAddress.

        Those that no person could read are left out.
        """
        found = names.mail_addresses(self.parsed.alternative_names)
        if not found:
            for rdn in self.parsed.subject.chosen:
                found += [
                    str(a["value"].native) for a in rdn if a["type"].native == "email_address"
                ]
        return tuple(dict.fromkeys(normal(a) for a in found if a.isprintable()))

    def _names(self) -> tuple[str, str]:
        """Return subject (its common name, or the whole of it) and issuer for a person."""
        native = self.parsed.subject.native
        common = native.get("common_name", "")
        if isinstance(common, list):
            common = common[-1]
        subject = printable(str(common) or self.parsed.subject.human_friendly)
        return subject, printable(self.parsed.issuer.human_friendly)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the DER, in hex."""
        return sha256(self.der).hexdigest()

    @property
    def is_root(self) -> bool:
        """Self-issued: it is its own issuer."""
        return self.issuer == self.subject

    def valid_at(self, moment: datetime) -> bool:
        """Tell whether `moment` lies within the validity."""
        return self.not_before <= moment <= self.not_after


def utc(moment: object) -> datetime:
    """Return a time as asn1crypto reads it, in UTC; ValueError or OverflowError if it is none.

    ASN.1 has a year 0, times without a zone, and zones that lead out of the calendar.
    """
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("a time that is not in UTC")
    return moment.astimezone(UTC)


def read_file(path: str) -> list[Certificate]:
    """Return the certificates of a PEM or DER file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = read(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if not found:
        raise UsageError(f"there is no certificate in {path}")
    return found


def read(data: bytes) -> list[Certificate]:
    """Return the certificates of PEM text (any number, among other text) or of one DER.

    Either may be a PKCS #7 bundle, that is a SignedData that nobody signed (RFC 5652, section 5.1).
    """
    if data[:1] == b"\x30":
        return [Certificate(one) for one in bundle.certificates(data) or (data,)]
    found: list[Certificate] = []
    try:
        for label, body in _PEM.findall(data):
            one = binascii.a2b_base64(body)
            inside = [one] if label.endswith(b"CERTIFICATE") else bundle.certificates(one)
            found += map(Certificate, inside)
    except binascii.Error as error:
        raise UsageError(f"a certificate that is not valid base64: {error}") from None
    return found


def pem(certificate: Certificate) -> str:
    """Return the certificate as PEM."""
    return der.pem("CERTIFICATE", certificate.der).decode()


def of_key(key: Key, files: Iterable[Certificate] = ()) -> list[Certificate]:
    """Return the certificates for a key: the token's own and those of `files` that match it."""
    own: list[Certificate] = []
    for data in key.certificates:
        try:
            own.append(Certificate(data))
        except UsageError:
            continue  # an odd object on the token must not hide the good ones
    return [c for c in dict.fromkeys((*own, *files)) if c.spki == key.spki]


def chain(leaf: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
    """Return `leaf` and its issuers as far as `pool` has them, without a self-issued root."""
    found = [leaf]
    while len(found) < MAX_CHAIN:
        issuer = next((c for c in pool if c.subject == found[-1].issuer and not c.is_root), None)
        if issuer is None or issuer in found:
            break
        found.append(issuer)
    return found
