"""Names in certificates: compared as RFC 5280, section 7.1, has it, and read as far as used."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hsmagent.mail.cms import ber, oids
from hsmagent.mail.cms.ber import ASN1_ERRORS, Malformed
from hsmagent.mail.cms.parse import load, object_identifier

# Preparing a name for comparison takes microseconds for each character of it.
MAX_NAME = 2048
MAX_PARTS = 64
_SPECIAL, _BACKSLASH = re.compile(r'(^[ #]|[,+"\\<>;]| $)'), r"\\\1"
_RFC822_NAME = 0x81
_OTHER_NAME = 0xA0
_MAX_EXTENSION = 64 * 1024

# Type of attribute → asn1crypto's name for it, its label for a person, and a plain value's tags.
_TEXT, _IA5 = {0x0C, 0x13}, {0x16}  # UTF8String and PrintableString; IA5String
_PLAIN_TYPES = {
    "2.5.4.3": ("common_name", "Common Name", _TEXT),
    "2.5.4.4": ("surname", "Surname", _TEXT),
    "2.5.4.5": ("serial_number", "Serial Number", _TEXT),
    "2.5.4.6": ("country_name", "Country", _TEXT),
    "2.5.4.7": ("locality_name", "Locality", _TEXT),
    "2.5.4.8": ("state_or_province_name", "State/Province", _TEXT),
    "2.5.4.10": ("organization_name", "Organization", _TEXT),
    "2.5.4.11": ("organizational_unit_name", "Organizational Unit", _TEXT),
    "2.5.4.42": ("given_name", "Given Name", _TEXT),
    oids.EMAIL_ADDRESS: ("email_address", "Email Address", _IA5),
}
_LABELS = {name: label for name, label, _ in _PLAIN_TYPES.values()}
_PLAIN_VALUE = re.compile(rb"(?!.*[xX][nN]--)[ -~]+")  # ASCII, without a host's name in IDNA
_BLANKS = re.compile(" +")


def plain(name: bytes) -> list[tuple[str, str]] | None:
    """Return type and value of each part of a Name (DER) of nothing but ASCII; None for others.

    Most names are plain, and easy to prepare for comparison. Raises Malformed if it is no Name.
    """
    what, found = "a name", list[tuple[str, str]]()
    reader = ber.inside(name, what)
    while reader.peek() is not None:
        reader.enter(ber.SET, what)
        reader.enter(ber.SEQUENCE, what)
        kind, _, tags = _PLAIN_TYPES.get(object_identifier(reader, what), ("", "", set[int]()))
        tag = reader.peek() or 0
        if tag not in tags:
            return None
        value = ber.contents(reader.element(len(name), what, tag))
        reader.leave(what)
        if reader.peek() is not None or not _PLAIN_VALUE.fullmatch(value):
            return None
        reader.leave(what)
        found.append((kind, value.decode("ascii")))
    reader.leave(what)
    return found if reader.peek() is None else None


def mail_addresses(alternatives: Sequence[bytes]) -> list[str]:
    """Return the mail addresses among GeneralNames: rfc822Name, and SmtpUTF8Mailbox (RFC 9598)."""
    found: list[str] = []
    for data in alternatives:
        if data[0] == _RFC822_NAME:
            text = ber.octets(data, "an address", _RFC822_NAME)
            found += [text.decode("ascii")] if text.isascii() else []
        elif data[0] == _OTHER_NAME:
            found += _smtp_utf8_mailbox(data)
    return found


def _smtp_utf8_mailbox(data: bytes) -> list[str]:
    """RFC 9598, section 3: a UTF8String whose part before the @ is not ASCII."""
    from asn1crypto import core

    what = "an alternative name"
    try:
        reader = ber.inside(data, what, _OTHER_NAME)
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
    if parts := plain(name):
        _bound(len(parts))
        return "\x1e".join(f"{kind}: {_prepared(value)}" for kind, value in parts)
    parsed = _parsed(name)
    _bound(len(parsed.chosen))
    if any(len(rdn) != len({ntv["type"].native for ntv in rdn}) for rdn in parsed.chosen):
        raise ValueError("a name with a part that says the same twice")
    return str(parsed.hashable)


def _parsed(name: bytes) -> Any:
    """Return a Name (DER) as asn1crypto reads it, which is imported for such names only."""
    from asn1crypto import x509

    return x509.Name.load(name, strict=True)


def _bound(count: int) -> None:
    if count > MAX_PARTS:
        raise ValueError(f"a name of {count} parts; {MAX_PARTS} are allowed")


def _prepared(value: str) -> str:
    """Prepare ASCII as RFC 4518, section 2, has it: for ASCII, only case and blanks matter."""
    return f" {_BLANKS.sub('  ', value.lower()).strip()} "


def email_addresses(name: bytes) -> list[str]:
    """Return the emailAddress attributes of a Name (DER)."""
    parts = plain(name)
    if parts is None:
        pairs = [pair for rdn in _parsed(name).chosen for pair in rdn]
        parts = [(pair["type"].native, str(pair["value"].native)) for pair in pairs]
    return [value for kind, value in parts if kind == "email_address"]


def common(name: bytes) -> str:
    """Return a Name (DER) for a person: its common name, or all of it."""
    if parts := plain(name):
        found = [value for kind, value in parts if kind == "common_name"]
        return found[-1] if found else whole(name)
    value = _parsed(name).native.get("common_name", "")
    return str(value[-1] if isinstance(value, list) else value) or whole(name)


def whole(name: bytes) -> str:
    """Return all of a Name (DER) for a person, as asn1crypto does."""
    parts = plain(name) or []
    if parts and len(dict(parts)) == len(parts):
        ordered = parts if parts[-1][0] == "country_name" else reversed(parts)
        texts = [f"{_LABELS[kind]}: {value}" for kind, value in ordered]
        return ("; " if any("," in text for text in texts) else ", ").join(texts)
    return str(_parsed(name).human_friendly)


def issuer_and_serial(data: bytes) -> tuple[bytes, int]:
    """Return the Name (DER) and the number of an IssuerAndSerialNumber; Malformed if it is none."""
    from asn1crypto import core

    what = "a certificate's issuer and number"
    reader = ber.inside(data, what)
    name = reader.element(_MAX_EXTENSION, what, ber.SEQUENCE)
    serial = load(core.Integer, reader.element(_MAX_EXTENSION, what, ber.INTEGER), what).native
    reader.leave(what)
    return name, int(serial)


def friendly(name: bytes) -> str:
    """Return a Name (DER) for a person, or "" when it cannot be read."""
    try:
        key(name)
        return whole(name)
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
    rdns = reversed(list(_parsed(name).chosen))
    pairs = ((pair["type"], str(pair["value"].native)) for rdn in rdns for pair in rdn)
    return [(_SHORT.get(kind.native, kind.dotted), value) for kind, value in pairs]


def distinguished(name: bytes) -> str:
    """Return a Name (DER) as RFC 4514 writes it."""
    return ",".join(f"{kind}={_SPECIAL.sub(_BACKSLASH, v)}" for kind, v in attributes(name))
