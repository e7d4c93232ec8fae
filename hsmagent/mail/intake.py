"""What `hsmagent contacts add` and `hsmagent roots add` find in a file: certificates and CRLs."""

from dataclasses import dataclass

from hsmagent.errors import UsageError
from hsmagent.mail import roots
from hsmagent.mail.cms import certificates, public_keys
from hsmagent.mail.cms.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Intake:
    """The certificates of a file, and its CRLs as DER; neither where it may be a signed mail."""

    certificates: tuple[Certificate, ...] = ()
    crls: tuple[bytes, ...] = ()


def read(data: bytes) -> Intake:
    """Read PEM, DER or a PKCS #7 bundle. Raises UsageError for a key of no use here."""
    if data[:1] == b"\x30" and roots.is_crl(data):
        return Intake(crls=(data,))
    found = certificates.read(data)
    for certificate in found:
        try:
            public_keys.load(certificate.spki)
        except public_keys.UnknownKind as error:
            raise UsageError(f"the certificate of {certificate.name}: {error}") from None
    lists = roots.read_crls(data)
    if not all(map(roots.is_crl, lists)):
        raise UsageError("there is a CRL that cannot be read")
    return Intake(tuple(found), tuple(lists))
