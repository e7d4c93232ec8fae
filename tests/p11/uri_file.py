"""The file by which programs that read a PEM key reach one in a token (pkcs11-provider).

A SEQUENCE of a VisibleString, which says what it is, and a UTF8String, the key's URI.
"""

import base64
import textwrap

from hsmagent.mail.cms import der

DESCRIPTION = b"PKCS#11 Provider URI v1.0"


def uri_file(uri: str) -> str:
    """Return the file."""
    content = der.sequence(der.tlv(0x1A, DESCRIPTION), der.tlv(0x0C, uri.encode()))
    lines = textwrap.wrap(base64.b64encode(content).decode(), 64)
    name = "PKCS#11 PROVIDER URI"
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""])
