"""X.509 certificates as mail needs them: who, by which address, for which key, until when."""

import binascii
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from hsmagent.errors import UsageError
from hsmagent.mail.address import normal
from hsmagent.mail.cms import ber, bundle, der, fields, names, oids
from hsmagent.mail.cms.ber import ASN1_ERRORS, Malformed, Reader
from hsmagent.mail.cms.parse import key_identifier, public_key
from hsmagent.mail.spool import Memory
from hsmagent.model import Key, printable

MAX_CHAIN = 8
_UNREADABLE = "a certificate that cannot be read"
_USAGES = frozenset(fields.KEY_USAGE)
_PEM = re.compile(
    rb"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE|PKCS7|CMS)-----([^-]+)-----END ",
)


class Certificate:
    """One certificate; equal to another with the same DER. What cannot be read raises UsageError.

    serial_der, issuer_der, subject_der, spki: these fields, each a DER element as it stands.
    """

    def __init__(self, data: bytes) -> None:
        self.der = data
        try:
            # Every field that is used is read now, so that no malformed one raises later, where
            # nobody expects it. Other fields may be malformed.
            found = fields.read(data)
            self.serial_der, self.spki = found.serial, found.spki
            self.issuer_der, self.subject_der = found.issuer, found.subject
            self._extension = found.extensions.get
            self.not_before = fields.moment(found.not_before)
            self.not_after = fields.moment(found.not_after)
            self.issuer, self.subject = names.key(self.issuer_der), names.key(self.subject_der)
            _ = self.serial, self.key_type, self.key_identifier, self.key_usage
            _ = self.purposes, self.addresses
        except (Malformed, *ASN1_ERRORS):
            raise UsageError(_UNREADABLE) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)

    @cached_property
    def parsed(self) -> Any:
        """What the path validation reads. Raises UsageError where that differs from our reading."""
        from hsmagent.mail.cms.readable import Readable

        try:
            found = Readable.load(self.der, strict=True)
            _ = found.ca, found.critical_extensions, found["tbs_certificate"]["version"].native
            _ = found.issuer.hashable, found.subject.hashable
            theirs = found.public_key.dump(), found.issuer.dump(), found.subject.dump()
            times = fields.utc(found.not_valid_before), fields.utc(found.not_valid_after)
            usage, purposes = found.key_usage_value, found.extended_key_usage_value
            agreed = (
                found.serial_number == self.serial,
                theirs == (self.spki, self.issuer_der, self.subject_der),
                times == (self.not_before, self.not_after),
                usage is None or usage.native & _USAGES == self.key_usage,
                purposes is None or frozenset(each.dotted for each in purposes) == self.purposes,
            )
        except (Malformed, *ASN1_ERRORS):
            raise UsageError(_UNREADABLE) from None
        if not all(agreed):  # the two readers disagree: it is made to mislead one of them
            raise UsageError(_UNREADABLE)
        return found

    @property
    def can_be_validated(self) -> bool:
        """Whether `parsed` raises nothing."""
        try:
            _ = self.parsed
        except UsageError:
            return False
        return True

    @cached_property
    def serial(self) -> int:
        """The serial number; negative ones exist, though they should not."""
        return int.from_bytes(ber.contents(self.serial_der), "big", signed=True)

    @cached_property
    def issuer_and_serial(self) -> bytes:
        """The IssuerAndSerialNumber (RFC 5652, section 10.2.4) by which messages name it."""
        return der.sequence(self.issuer_der, self.serial_der)

    def is_named_by(self, identifier: bytes) -> bool:
        """Whether what a CMS message names somebody by means this certificate.

        An IssuerAndSerialNumber, with the issuer's name compared as names are; a key identifier,
        [0] OCTET STRING; or a RecipientKeyIdentifier, [0] SEQUENCE. Malformed for a broken [0].
        """
        if identifier == self.issuer_and_serial:
            return True
        if identifier[0] in {ber.KEY_IDENTIFIER, ber.context(0)}:
            return _key_identifier(identifier) == self.key_identifier
        try:
            issuer, serial = names.issuer_and_serial(identifier)
            return serial == self.serial and names.key(issuer) == self.issuer
        except (Malformed, *ASN1_ERRORS):
            return False

    @cached_property
    def key_type(self) -> str:
        """The kind of its key: "RSA", "EC", "Ed25519", or an OID."""
        kind, _ = public_key(self.spki)
        return oids.KEY_TYPES.get(kind, kind)

    @cached_property
    def key_identifier(self) -> bytes:
        """The SubjectKeyIdentifier, or what RFC 5280 would have it be."""
        given = self._extension(oids.ID_CE_SUBJECT_KEY_IDENTIFIER)
        if given is None:
            return key_identifier(self.spki)
        return Reader(Memory(given)).octets(len(given), "its key's identifier")

    @cached_property
    def key_usage(self) -> frozenset[str]:
        """The names of the KeyUsage bits; all of them when the extension is not there."""
        value = self._extension(oids.ID_CE_KEY_USAGE)
        return _USAGES if value is None else fields.key_usage(value)

    @cached_property
    def purposes(self) -> frozenset[str] | None:
        """The extended key usages, as OIDs; None when the extension is not there."""
        value = self._extension(oids.ID_CE_EXT_KEY_USAGE)
        return None if value is None else fields.purposes(value)

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        """Mail addresses: those of the SAN; without any there, the subject's emailAddress.

        Those with characters that cannot be shown are left out.
        """
        value = self._extension(oids.ID_CE_SUBJECT_ALT_NAME)
        found = names.mail_addresses(fields.alternative_names(value)) if value else []
        found = found or names.email_addresses(self.subject_der)
        return tuple(dict.fromkeys(normal(a) for a in found if a.isprintable()))

    @cached_property
    def name(self) -> str:
        """The subject for a person: its common name, or the whole of it."""
        return printable(names.common(self.subject_der))

    @cached_property
    def issuer_name(self) -> str:
        """The issuer for a person."""
        return printable(names.whole(self.issuer_der))

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


def _key_identifier(identifier: bytes) -> bytes:
    what, reader = "a key identifier", Reader(Memory(identifier))
    if identifier[0] == ber.KEY_IDENTIFIER:
        return reader.octets(len(identifier), what, ber.KEY_IDENTIFIER)
    reader.enter(ber.context(0), what)
    return reader.octets(len(identifier), what)


Pair = tuple[Key, Certificate]


def content_of(path: str) -> bytes:
    """Return the content of a file that a person has named. Raises UsageError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def read_file(path: str) -> list[Certificate]:
    """Return the certificates of a PEM or DER file. Raises UsageError."""
    data = content_of(path)
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


def readable(every: Iterable[bytes]) -> list[Certificate]:
    """Return those of these certificates (DER) that can be read: an odd one must not hide them."""
    found: list[Certificate] = []
    for data in every:
        with suppress(UsageError):
            found.append(Certificate(data))
    return found


def of_key(key: Key, files: Iterable[Certificate] = ()) -> list[Certificate]:
    """Return the certificates for a key: the token's own and those of `files` that match it."""
    every = dict.fromkeys((*readable(key.certificates), *files))
    return [certificate for certificate in every if certificate.spki == key.spki]


def of_keys(keys: Iterable[Key], files: Sequence[Certificate] = ()) -> list[Pair]:
    """Return each key with each of its certificates: see of_key."""
    return [(key, certificate) for key in keys for certificate in of_key(key, files)]


def chain(leaf: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
    """Return `leaf` and its issuers as far as `pool` has them, without a self-issued root."""
    found = [leaf]
    while len(found) < MAX_CHAIN:
        issuer = next((c for c in pool if c.subject == found[-1].issuer and not c.is_root), None)
        if issuer is None or issuer in found:
            break
        found.append(issuer)
    return found
