"""Readers of what other protocols sign: mail, DER, OpenPGP, JOSE, TLS. Each says if it takes it.

Written from their specifications, and apart from `hsmagent.ssh`, whose rule they check.
"""

import base64
import ctypes
import ctypes.util
import json
from collections.abc import Callable
from functools import cache

from asn1crypto.core import Sequence, Set

from hsmagent.errors import UsageError
from hsmagent.mail import mime
from hsmagent.mail.spool import Memory, Region

DOCUMENT_SIGNATURES = (0, 1)  # OpenPGP: binary, text
TLS13_CONTEXTS = (b"TLS 1.3, server CertificateVerify", b"TLS 1.3, client CertificateVerify")
RANDOMS = 64  # TLS 1.2: the client's and the server's random


def our_mail(data: bytes) -> bool:
    """Our reader finds a header with a MIME field."""
    try:
        entity = mime.read(Region.whole(Memory(data)))
    except UsageError:
        return False
    return any(field.name.lower().startswith("content-") for field in entity.fields)


@cache
def _libcrypto() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for name in ("BIO_new_mem_buf", "BIO_new", "BIO_s_mem"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


def openssl_mail(data: bytes) -> bool:
    """`openssl cms -verify -text` takes the content as a mail."""
    crypto = _libcrypto()
    source = ctypes.c_void_p(crypto.BIO_new_mem_buf(data, len(data)))
    target = ctypes.c_void_p(crypto.BIO_new(ctypes.c_void_p(crypto.BIO_s_mem())))
    try:
        return bool(crypto.SMIME_text(source, target) == 1)
    finally:
        crypto.BIO_free(source)
        crypto.BIO_free(target)
        crypto.ERR_clear_error()


def der(data: bytes) -> bool:
    """One DER SET (signed attributes) or SEQUENCE (a certificate, a request, an OCSP answer)."""
    for kind in (Set, Sequence):
        try:
            kind.load(data, strict=True)
        except (ValueError, TypeError):
            continue
        return True
    return False


def openpgp(data: bytes) -> bool:
    """Take a document, the hashed part of a signature packet, and the trailer with its length."""
    for version, size in ((4, 4), (5, 8), (6, 4)):
        trailer = data[-size - 2 :]
        if trailer[:2] != bytes((version, 0xFF)):
            continue
        length, hashed = int.from_bytes(trailer[2:], "big"), data[: -size - 2]
        packet = hashed[len(hashed) - length :] if length <= len(hashed) else b""
        if packet[:1] == bytes((version,)) and packet[1:2] in map(_byte, DOCUMENT_SIGNATURES):
            return True
    return False


def _byte(number: int) -> bytes:
    return bytes((number,))


def jose(data: bytes) -> bool:
    """Take a JWS signing input: base64url of a JSON object, a point, base64url (RFC 7515)."""
    header, point, _ = data.partition(b".")
    try:
        decoded = base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4))
        return bool(point) and isinstance(json.loads(decoded), dict)
    except (ValueError, RecursionError):
        return False


def tls13(data: bytes) -> bool:
    """64 blanks and the context string (RFC 8446, section 4.4.3)."""
    rest = data.removeprefix(b" " * 64)
    return len(rest) < len(data) and rest.startswith(TLS13_CONTEXTS)


def tls12_client(data: bytes) -> bool:
    """CertificateVerify: all handshake messages from ClientHello on (RFC 5246, section 7.4.8)."""
    at, first = 0, data[:1] == b"\x01"
    while first and at + 4 <= len(data):
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    return first and at == len(data)


def tls12_server(data: bytes) -> bool:
    """ServerKeyExchange with an elliptic curve, after two randoms (RFC 8422, section 5.4).

    The client's random is its own: one that begins as an SSHSIG does not happen.
    """
    parameters = data[RANDOMS:]
    named_curve = parameters[:1] == b"\x03" and len(parameters) > 4
    return named_curve and len(parameters) == 4 + parameters[3] and data[:3] != b"SSH"


READERS: dict[str, Callable[[bytes], bool]] = {
    "our mail": our_mail,
    "openssl's mail": openssl_mail,
    "DER": der,
    "OpenPGP": openpgp,
    "JOSE": jose,
    "TLS 1.3": tls13,
    "TLS 1.2 client": tls12_client,
    "TLS 1.2 server": tls12_server,
}
