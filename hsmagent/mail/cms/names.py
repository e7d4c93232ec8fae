"""Names in certificates: compared as RFC 5280, section 7.1, has it, and read as far as used.

asn1crypto reads a certificate whole or not at all; foreign ones hold URIs, X.400 names and other
things that it cannot read and that nobody here looks at. `Readable` leaves those alone.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from asn1crypto import core, x509

from hsmagent.mail.cms import ber, oids
from hsmagent.mail.cms.ber import ASN1_ERRORS, Malformed, Reader
from hsmagent.mail.cms.parse import load, object_identifier
from hsmagent.mail.spool import Memory

# Preparing a name for comparison takes microseconds for each character of it.
MAX_NAME = 2048
MAX_PARTS = 64
MAX_ALTERNATIVES = 1000
_SPECIAL, _BACKSLASH = re.compile(r'(^[ #]|[,+"\\<>;]| $)'), r"\\\1"
_RFC822_NAME = 0x81
_OTHER_NAME = 0xA0
_MAX_EXTENSION = 64 * 1024

# The extensions that we, or the path validation, look at.
_USED = frozenset(
    {
        "key_identifier",
        "key_usage",
        "basic_constraints",
        "name_constraints",
        "certificate_policies",
        "policy_mappings",
        "policy_constraints",
        "inhibit_any_policy",
        "authority_key_identifier",
        "extended_key_usage",
    }
)
_USED_IF_READABLE = frozenset({"crl_distribution_points", "freshest_crl"})


class Readable(x509.Certificate):  # type: ignore[misc]
    """A certificate of which only those extensions are read that are used.

    An extension that is used and stands there twice makes it unreadable (RFC 5280, section 4.2).
    """

    _subject_alt_name: bytes = b""

    @property
    def alternative_names(self) -> list[bytes]:
        """Each GeneralName of the subjectAltName, as it stands."""
        if not self._processed_extensions:
            self._set_extensions()
        if not self._subject_alt_name:
            return []
        reader = Reader(Memory(self._subject_alt_name))
        reader.enter(ber.SEQUENCE, "the alternative names")
        return list(reader.elements(_MAX_EXTENSION, MAX_ALTERNATIVES, "the alternative names"))

    def _set_extensions(self) -> None:
        self._critical_extensions: set[str] = set()
        seen: set[str] = set()
        for extension in self["tbs_certificate"]["extensions"]:
            name = extension["extn_id"].native
            if name in seen:
                raise ValueError(f"it has the extension {name} twice")
            seen.add(name)
            if extension["critical"].native:
                self._critical_extensions.add(name)
            if name in _USED:
                setattr(self, f"_{name}_value", extension["extn_value"].parsed)
            elif name in _USED_IF_READABLE:
                setattr(self, f"_{name}_value", _or_none(extension["extn_value"]))
            elif name == "subject_alt_name":
                self._subject_alt_name = bytes(extension["extn_value"])
        self._processed_extensions = True
        if self._subject_alt_name:
            readable = [one for one in map(_general_name, self.alternative_names) if one]
            self._subject_alt_name_value = x509.GeneralNames(readable)


def _or_none(value: Any) -> Any:
    try:
        found = value.parsed
        _ = found.native
    except ASN1_ERRORS:
        return None
    return found


def _general_name(data: bytes) -> Any:
    try:
        found = x509.GeneralName.load(data, strict=True)
        _ = found.native
    except ASN1_ERRORS:
        return None
    return found


def mail_addresses(alternatives: Sequence[bytes]) -> list[str]:
    """Return the mail addresses among GeneralNames: rfc822Name, and SmtpUTF8Mailbox (RFC 9598)."""
    found: list[str] = []
    for data in alternatives:
        reader = Reader(Memory(data))
        if data[0] == _RFC822_NAME:
            text = reader.octets(_MAX_EXTENSION, "an address", _RFC822_NAME)
            found += [text.decode("ascii")] if text.isascii() else []
        elif data[0] == _OTHER_NAME:
            found += _smtp_utf8_mailbox(reader)
    return found


def _smtp_utf8_mailbox(reader: Reader) -> list[str]:
    """RFC 9598, section 3: a UTF8String whose part before the @ is not ASCII."""
    what = "an alternative name"
    try:
        reader.enter(_OTHER_NAME, what)
        if object_identifier(reader, what) != oids.ID_ON_SMTP_UTF8_MAILBOX:
            return []
        reader.enter(ber.context(0), what)
        text = str(load(core.UTF8String, reader.element(_MAX_EXTENSION, what), what).native)
    except Malformed:
        return []
    return [] if text.rpartition("@")[0].isascii() else [text]


@lru_cache(maxsize=4096)
def key(name: bytes) -> str:
    """Return what is equal for two Names (DER) exactly when they are the same name.

    PrintableString and UTF8String, upper and lower case, and runs of blanks do not matter. Raises
    one of ASN1_ERRORS.
    """
    if len(name) > MAX_NAME:
        raise ValueError(f"a name of {len(name)} bytes; {MAX_NAME} are allowed")
    parsed = x509.Name.load(name, strict=True)
    if len(parsed.chosen) > MAX_PARTS:
        raise ValueError(f"a name of {len(parsed.chosen)} parts; {MAX_PARTS} are allowed")
    if any(len(rdn) != len({ntv["type"].native for ntv in rdn}) for rdn in parsed.chosen):
        raise ValueError("a name with a part that says the same twice")
    return str(parsed.hashable)


def issuer_and_serial(data: bytes) -> tuple[bytes, int]:
    """Return the Name (DER) and the number of an IssuerAndSerialNumber; Malformed if it is none."""
    what = "a certificate's issuer and number"
    reader = Reader(Memory(data))
    reader.enter(ber.SEQUENCE, what)
    name = reader.element(_MAX_EXTENSION, what, ber.SEQUENCE)
    serial = load(core.Integer, reader.element(_MAX_EXTENSION, what, ber.INTEGER), what).native
    reader.leave(what)
    return name, int(serial)


def friendly(name: bytes) -> str:
    """Return a Name (DER) for a person, or "" when it cannot be read."""
    try:
        key(name)
        return str(x509.Name.load(name, strict=True).human_friendly)
    except ASN1_ERRORS:
        return ""


_SHORT = {
    "common_name": "CN",
    "organization_name": "O",
    "organizational_unit_name": "OU",
    "country_name": "C",
    "state_or_province_name": "ST",
    "locality_name": "L",
    "domain_component": "DC",
    "user_id": "UID",
    "email_address": "EMail",
    "surname": "SN",
    "given_name": "GN",
    "serial_number": "SerialNumber",
}


def attributes(name: bytes) -> list[tuple[str, str]]:
    """Return the attributes of a Name (DER) that can be read, the last first, with short names."""
    rdns = reversed(list(x509.Name.load(name, strict=True).chosen))
    pairs = ((pair["type"], str(pair["value"].native)) for rdn in rdns for pair in rdn)
    return [(_SHORT.get(kind.native, kind.dotted), value) for kind, value in pairs]


def distinguished(name: bytes) -> str:
    """Return a Name (DER) as RFC 4514 writes it."""
    return ",".join(f"{kind}={_SPECIAL.sub(_BACKSLASH, v)}" for kind, v in attributes(name))
