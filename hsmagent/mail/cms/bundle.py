"""PKCS #7 bundles: a SignedData for its certificates' sake (RFC 5652, section 5.1)."""

from hsmagent.mail.cms import ber, oids
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.cms.parse import open_content
from hsmagent.mail.spool import Memory

_CERTIFICATE_MAX = 64 * 1024
_MANY = 1000
_SKIPPED_MAX = 64 * 1024 * 1024


def certificates(data: bytes) -> list[bytes]:
    """Return the DER of the certificates in a SignedData; none when `data` is not one."""
    try:
        kind, reader = open_content(Memory(data))
    except Malformed:
        return []
    return _inside(reader) if kind == oids.ID_SIGNED_DATA else []


def _inside(reader: Reader) -> list[bytes]:
    what = "the certificates"
    reader.enter(ber.SEQUENCE, "the bundle")
    for _ in ("version", "digest algorithms", "content"):
        reader.element(_SKIPPED_MAX, "the bundle")
    if reader.peek() != ber.context(0):
        return []
    reader.enter(ber.context(0), what)
    return [one for one in reader.elements(_CERTIFICATE_MAX, _MANY, what) if one[0] == ber.SEQUENCE]
