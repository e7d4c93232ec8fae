"""Reading the outer part of a CMS message, its kind, and the small structures in it."""

from hashlib import sha1
from typing import Any

from hsmagent.mail.cms import ber
from hsmagent.mail.cms.ber import ASN1_ERRORS, Malformed, Reader
from hsmagent.mail.spool import Source

OID_MAX = 64
ALGORITHM_MAX = 4096


def open_content(source: Source) -> tuple[str, Reader]:
    """Enter a ContentInfo (RFC 5652, section 3): its type, and the reader before the value."""
    reader = Reader(source)
    reader.enter(ber.SEQUENCE, "the CMS message")
    kind = object_identifier(reader, "its type")
    reader.enter(ber.context(0), "its content")
    return kind, reader


def object_identifier(reader: Reader, what: str) -> str:
    """Take an OBJECT IDENTIFIER, dotted (X.690, section 8.19)."""
    body = ber.contents(reader.element(OID_MAX, what, ber.OBJECT_IDENTIFIER))
    arcs, arc, starts = list[int](), 0, True
    for octet in body:
        if starts and octet == 0x80:  # noqa: PLR2004 (a leading zero)
            raise Malformed(f"{what} cannot be read")
        arc = arc << 7 | octet & 0x7F
        starts = not octet & 0x80
        if starts:
            arcs.append(arc)
            arc = 0
    if not arcs or not starts:
        raise Malformed(f"{what} cannot be read")
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - first * 40, *arcs[1:])))


def load(kind: Any, data: bytes, what: str) -> Any:
    """Parse a small structure in full; Malformed when it is not one."""
    try:
        value = kind.load(data, strict=True)
        _ = value.native
    except ASN1_ERRORS:
        raise Malformed(f"{what} cannot be read") from None
    return value


def algorithm(reader: Reader, what: str) -> tuple[str, bytes]:
    """Take an AlgorithmIdentifier: its OID, and its parameters as they stand or b""."""
    reader.enter(ber.SEQUENCE, what)
    kind = object_identifier(reader, what)
    parameters = b"" if reader.peek() is None else reader.element(ALGORITHM_MAX, what)
    reader.leave(what)
    return kind, parameters


def public_key(spki: bytes) -> tuple[str, bytes]:
    """Return a SubjectPublicKeyInfo's algorithm (an OID) and its BIT STRING as it stands."""
    what = "the public key"
    reader = ber.inside(spki, what)
    kind, _ = algorithm(reader, what)
    bits = reader.element(len(spki), what, ber.BIT_STRING)
    reader.leave(what)
    return kind, bits


def key_identifier(spki: bytes) -> bytes:
    """Return SHA-1 over the key's bits (RFC 5280, section 4.2.1.2, method 1)."""
    _, bits = public_key(spki)
    value = ber.octets(bits, "the public key", ber.BIT_STRING)
    return sha1(value[1:]).digest()  # noqa: S324 - a name
