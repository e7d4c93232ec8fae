"""A CMS message in a file: DER (or BER), PEM (RFC 7468), or base64 alone."""

import re
from collections.abc import Iterator

from hsmagent.mail import canonical
from hsmagent.mail.spool import MAX_FILE, Region, Source, Spool

_BEGIN = re.compile(rb"-----BEGIN [A-Z0-9# ]+-----\s")
_BEFORE_MAX = 64 * 1024  # text may stand before it (RFC 7468, section 2)
_SEQUENCE = b"\x30"


def may_be_message(source: Source) -> bool:
    """Tell whether this begins as DER (or BER) does, or has a line that begins PEM."""
    return source.read_at(0, 1) == _SEQUENCE or _begin(source) is not None


def dearmoured(source: Source) -> Source:
    """Return the message as DER (or BER), whichever form it came in. Raises Malformed."""
    if source.read_at(0, 1) == _SEQUENCE:
        return source
    begin = _begin(source)
    inside = Region(source, begin.end() if begin else 0, source.size)
    spool = Spool(sealed=True, limit=MAX_FILE)
    spool.writelines(canonical.from_base64(_before_dash(inside), "the message"))
    return spool


def _begin(source: Source) -> re.Match[bytes] | None:
    return _BEGIN.search(source.read_at(0, _BEFORE_MAX))


def _before_dash(region: Region) -> Iterator[bytes]:
    """Yield what stands before the line that ends PEM: base64 has no dash."""
    for chunk in region.chunks():
        text, dash, _ = chunk.partition(b"-")
        yield text
        if dash:
            return
