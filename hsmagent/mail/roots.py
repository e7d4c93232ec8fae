"""The roots that mail is judged by: the system's, where distributions put them; and CRL files."""

import binascii
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hsmagent.errors import UsageError
from hsmagent.mail.cms import certificates
from hsmagent.mail.cms.certificates import Certificate

# Where there is a bundle for mail, it comes before the one for everything.
SYSTEM = (
    "/etc/pki/ca-trust/extracted/pem/email-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ca-certificates/extracted/email-ca-bundle.pem",  # Arch
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
)
_BLOCK = re.compile(rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----([^-]+)-----END ")
_CRL = re.compile(rb"-----BEGIN X509 CRL-----([^-]+)-----END ")


class Bundle:
    """The system's roots. Few of them are ever needed, and reading all takes time."""

    def __init__(self, files: Sequence[str] = SYSTEM) -> None:
        self._files = files

    def named(self, names: Collection[bytes]) -> tuple[Certificate, ...]:
        """Return the roots that bear one of these Names (DER), as they are spelled."""
        named = (data for data in _blocks(self._files) if any(name in data for name in names))
        return tuple(certificates.readable(named))

    def all(self) -> tuple[Certificate, ...]:
        """Return every root, unreadable ones left out."""
        return tuple(certificates.readable(_blocks(self._files)))


def has_issuer(name: bytes, files: Sequence[str] = SYSTEM) -> bool:
    """Whether a system root bears this Name (DER). Quick: nothing is parsed."""
    return any(name in data for data in _blocks(files))


def _blocks(files: Sequence[str]) -> Iterator[bytes]:
    path = next((Path(name) for name in files if Path(name).is_file()), None)
    for found in _BLOCK.finditer(path.read_bytes()) if path else ():
        try:
            yield binascii.a2b_base64(found[1])
        except binascii.Error:
            continue


def read_crls(data: bytes) -> list[bytes]:
    """Return the CRLs of PEM text, among other text, as DER."""
    try:
        return [binascii.a2b_base64(body) for body in _CRL.findall(data)]
    except binascii.Error as error:
        raise UsageError(f"a CRL that is not valid base64: {error}") from None


def read_crl_file(path: str) -> list[bytes]:
    """Return the CRLs of a PEM or DER file. Raises UsageError."""
    data = certificates.content_of(path)
    found = [data] if data[:1] == b"\x30" else read_crls(data)
    if not found or not all(map(is_crl, found)):
        raise UsageError(f"there is no CRL that can be read in {path}")
    return found


def read_anchors(path: str) -> tuple[list[Certificate], list[bytes]]:
    """Return the certificates of a file and, since an OpenSSL CAfile may hold them, its CRLs."""
    data = certificates.content_of(path)
    found, lists = certificates.read(data), read_crls(data)
    if not found and not lists:
        raise UsageError(f"there is no certificate in {path}")
    return found, lists


def is_crl(data: bytes) -> bool:
    """Whether this is the DER of a CRL."""
    from asn1crypto import crl

    from hsmagent.mail.cms.ber import ASN1_ERRORS

    try:
        found = crl.CertificateList.load(data, strict=True)
        _ = found["tbs_cert_list"]["this_update"].native
    except ASN1_ERRORS:
        return False
    return True
