"""Certificates are read without asn1crypto, and mean what they mean to it."""

import binascii
import re
from pathlib import Path

import pytest
from asn1crypto import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmagent.errors import UsageError
from hsmagent.mail import purpose
from hsmagent.mail.cms import der, names
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.parse import object_identifier
from hsmagent.mail.cms.readable import Readable
from hsmagent.mail.report import Who
from hsmagent.mail.roots import SYSTEM
from hsmagent.mail.spool import Memory
from hsmagent.model import printable
from tests.parts.mail.people import person

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]+)-----END ")
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)
TYPES = st.sampled_from([oid for oid in names._PLAIN_TYPES if oid != "1.2.840.113549.1.9.1"])


def system_roots() -> list[bytes]:
    path = next((Path(name) for name in SYSTEM if Path(name).is_file()), None)
    blocks = _BLOCK.findall(path.read_bytes()) if path else []
    return [binascii.a2b_base64(block) for block in blocks]


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_both_readers_agree(kind: str) -> None:
    certificate = Certificate(person(kind).der)
    assert certificate.can_be_validated
    assert certificate.addresses == ("alice@example.org",)


def test_both_readers_agree_about_the_worlds_roots() -> None:
    for data in system_roots():
        certificate, theirs = Certificate(data), Readable.load(data)
        assert certificate.can_be_validated
        assert certificate.issuer_name == printable(theirs.issuer.human_friendly)
        assert theirs.key_identifier in {None, certificate.key_identifier}
        assert certificate.subject == theirs.subject.hashable


def name_of(parts: list[tuple[str, str]], tag: int) -> bytes:
    pairs = (der.sequence(der.oid(kind), der.tlv(tag, text.encode())) for kind, text in parts)
    return der.sequence(*(der.set_of(pair) for pair in pairs))


@given(st.lists(st.tuples(TYPES, TEXT), min_size=1, max_size=4), st.sampled_from([0x0C, 0x13]))
def test_a_plain_name_is_to_us_what_it_is_to_asn1crypto(
    parts: list[tuple[str, str]], tag: int
) -> None:
    data = name_of(parts, tag)
    theirs = x509.Name.load(data, strict=True)
    assert names.plain(data) is not None
    assert names.whole(data) == theirs.human_friendly
    if len({kind for kind, _ in parts}) == len(parts):
        assert names.key(data) == theirs.hashable


@given(TEXT, TEXT)
def test_names_are_one_name_in_either_spelling(one: str, other: str) -> None:
    """The quick way and asn1crypto's must agree: one name may be written for either."""
    quick = name_of([("2.5.4.3", one)], 0x0C)
    slow = der.sequence(
        der.set_of(der.sequence(der.oid("2.5.4.3"), der.tlv(0x1E, one.encode("utf-16-be"))))
    )
    assert names.plain(slow) is None
    assert names.key(quick) == names.key(slow)
    same = " ".join(one.lower().split()) == " ".join(other.lower().split())
    assert (names.key(quick) == names.key(name_of([("2.5.4.3", other)], 0x13))) is same


def test_two_meanings_are_none() -> None:
    """Bytes that the path validation reads otherwise than the rest of us could mislead one."""
    certificate = Certificate(person("p256").der)
    certificate.key_usage = frozenset({"key_cert_sign"})
    with pytest.raises(UsageError, match="cannot be read"):
        _ = certificate.parsed
    assert not certificate.can_be_validated


@pytest.mark.parametrize(
    ("body", "dotted"),
    [("2a864886f70d", "1.2.840.113549"), ("551d25", "2.5.29.37"), ("883703", "2.999.3")],
)
def test_object_identifiers(body: str, dotted: str) -> None:
    data = der.tlv(0x06, bytes.fromhex(body))
    assert object_identifier(Reader(Memory(data)), "it") == dotted


@pytest.mark.parametrize("body", ["", "80", "2a80", "2a8001", "2a86"])
def test_object_identifiers_that_are_none(body: str) -> None:
    data = der.tlv(0x06, bytes.fromhex(body))
    with pytest.raises(Malformed):
        object_identifier(Reader(Memory(data)), "it")


DAMAGE = st.tuples(st.integers(0, 5000), st.integers(0, 255))


@settings(max_examples=500)
@given(st.sampled_from(["rsa", "p256"]), st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_damaged_certificate_is_refused_at_once_or_never(
    kind: str, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(person(kind).der)
    for at, value in damage:
        data[at % len(data)] = value
    try:
        found = Certificate(bytes(data))
    except UsageError:
        return
    _ = found.name, found.issuer_name, found.is_root, Who.of(found), purpose.not_for_signing(found)
    if found.can_be_validated:
        purpose.not_for_issuing(found)


def test_a_version_that_cannot_be_read_is_seen_before_anybody_relies_on_it() -> None:
    data = person("p256").der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003820102"), 1)
    assert not Certificate(data).can_be_validated
