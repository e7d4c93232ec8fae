"""The fields of a certificate as they stand (RFC 5280, section 4.1), found without asn1crypto.

Signing a mail needs few of them, and importing asn1crypto takes longer than the signature.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from hsmagent.mail.cms import ber
from hsmagent.mail.cms.ber import Reader
from hsmagent.mail.cms.parse import load, object_identifier

MAX_EXTENSIONS = 1000
_BOOLEAN = 0x01
_UNIQUE_IDS = (0x81, 0x82)  # [1] and [2] IMPLICIT BIT STRING
# DER has these forms alone (RFC 5280, section 4.1.2.5); others are left to asn1crypto.
_UTC_TIME = re.compile(rb"\x17\x0d(\d\d)(\d{10})Z", re.DOTALL)
_GENERALIZED_TIME = re.compile(rb"\x18\x0f(\d{4})(\d{10})Z", re.DOTALL)
_CENTURY_ENDS = 50

KEY_USAGE = (
    "digital_signature",
    "non_repudiation",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Fields:
    """Each field with its header. extensions: OID → what is inside the OCTET STRING."""

    serial: bytes
    issuer: bytes
    not_before: bytes
    not_after: bytes
    subject: bytes
    spki: bytes
    extensions: dict[str, bytes]


def read(data: bytes) -> Fields:
    """Read a certificate. Malformed when it is none, or has an extension twice (section 4.2)."""
    what, size = "a certificate", len(data)
    reader = ber.inside(data, what)
    reader.enter(ber.SEQUENCE, what)
    if reader.peek() == ber.context(0):
        reader.element(size, "its version")
    serial = reader.element(size, "its number", ber.INTEGER)
    reader.element(size, what, ber.SEQUENCE)
    issuer = reader.element(size, "its issuer", ber.SEQUENCE)
    reader.enter(ber.SEQUENCE, "its validity")
    times = reader.element(size, "its start"), reader.element(size, "its end")
    reader.leave("its validity")
    subject = reader.element(size, "its subject", ber.SEQUENCE)
    spki = reader.element(size, "its key", ber.SEQUENCE)
    while reader.peek() in _UNIQUE_IDS:
        reader.element(size, what)
    extensions = _extensions(reader, size)
    reader.leave(what)
    reader.element(size, what, ber.SEQUENCE)
    reader.element(size, "its signature", ber.BIT_STRING)
    reader.leave(what)
    if reader.peek() is not None:
        raise ber.Malformed(f"{what} with something after it")
    return Fields(serial, issuer, *times, subject, spki, extensions)


def _extensions(reader: Reader, size: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    if reader.peek() != ber.context(3):
        return found
    what = "its extensions"
    reader.enter(ber.context(3), what)
    reader.enter(ber.SEQUENCE, what)
    while reader.peek() is not None:
        reader.enter(ber.SEQUENCE, what)
        kind = object_identifier(reader, what)
        if reader.peek() == _BOOLEAN:
            reader.element(size, what)
        if kind in found or len(found) >= MAX_EXTENSIONS:
            raise ber.Malformed(f"the extension {kind} twice, or too many of them")
        found[kind] = reader.octets(size, what)
        reader.leave(what)
    reader.leave(what)
    reader.leave(what)
    return found


def moment(data: bytes) -> datetime:
    """Return a Time; ValueError or OverflowError when it is none."""
    if found := _UTC_TIME.fullmatch(data):
        year = int(found[1])
        return _at(year + (2000 if year < _CENTURY_ENDS else 1900), found[2])
    if found := _GENERALIZED_TIME.fullmatch(data):
        return _at(int(found[1]), found[2])
    from asn1crypto.x509 import Time

    return utc(load(Time, data, "a time").native)


def _at(year: int, rest: bytes) -> datetime:
    month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, 10, 2))
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def utc(moment: object) -> datetime:
    """Return a time that asn1crypto has read, in UTC. Raises ValueError or OverflowError.

    ASN.1 has a year 0, times without a zone, and zones that lead out of Python's calendar.
    """
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("a time that is not in UTC")
    return moment.astimezone(UTC)


def key_usage(value: bytes) -> frozenset[str]:
    """Return the names of the bits of a KeyUsage (section 4.2.1.3)."""
    unused, *octets = ber.octets(value, "the key usage", ber.BIT_STRING)
    bits = "".join(f"{octet:08b}" for octet in octets)
    if unused > min(7, len(bits)):
        raise ber.Malformed("a key usage that is no BIT STRING")
    used = bits[: len(bits) - unused]
    return frozenset(name for name, bit in zip(KEY_USAGE, used, strict=False) if bit == "1")


def purposes(value: bytes) -> frozenset[str]:
    """Return the OIDs of an ExtKeyUsageSyntax (section 4.2.1.12)."""
    what = "the extended key usage"
    reader, found = ber.inside(value, what), set[str]()
    while reader.peek() is not None:
        found.add(object_identifier(reader, what))
    reader.leave(what)
    return frozenset(found)


def alternative_names(value: bytes) -> list[bytes]:
    """Return each GeneralName of a SubjectAltName (section 4.2.1.6), as it stands."""
    what = "the alternative names"
    reader = ber.inside(value, what)
    return list(reader.elements(len(value), MAX_EXTENSIONS, what))
