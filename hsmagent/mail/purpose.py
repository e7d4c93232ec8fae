"""What a certificate may be used for in mail: one rule for signing, encrypting and verifying.

RFC 8550, section 4.4; RFC 5280, sections 4.2.1.3 and 4.2.1.12.
"""

from collections.abc import Iterable
from datetime import datetime

from hsmagent.mail.cms import oids
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import printable

_SIGNING = {"digital_signature", "non_repudiation"}
MAIL = oids.ID_KP_EMAIL_PROTECTION
_MAIL = {MAIL, oids.ANY_EXTENDED_KEY_USAGE}
_VERSION_1 = "v1"
_OTHERS = {
    "1.3.6.1.5.5.7.3.1": "TLS servers",
    "1.3.6.1.5.5.7.3.2": "logging in (TLS)",
    "1.3.6.1.5.5.7.3.3": "signing programs",
    "1.3.6.1.5.5.7.3.8": "time stamps",
    "1.3.6.1.5.5.7.3.9": "OCSP",
    "1.3.6.1.5.5.7.3.17": "IPsec",
    "1.3.6.1.5.5.7.3.21": "logging in (ssh)",
    "1.3.6.1.5.5.7.3.22": "ssh servers",
    "1.3.6.1.5.2.3.4": "logging in (Kerberos)",
    "1.3.6.1.4.1.311.20.2.2": "logging in (Windows)",
    "1.3.6.1.4.1.311.10.3.12": "signing documents",
    "1.3.6.1.5.5.7.3.36": "signing documents",
}


def not_for_signing(certificate: Certificate) -> str:
    """Return why a certificate does not sign mail, or ""."""
    if not certificate.key_usage & _SIGNING:
        return f"the certificate of {certificate.name} is not for signing"
    return _not_for_mail(certificate)


def not_for_encryption(certificate: Certificate) -> str:
    """Return why mail is not encrypted to a certificate, or ""."""
    from hsmagent.mail.cms import public_keys

    try:
        key = public_keys.load(certificate.spki)
    except public_keys.UnknownKind as error:
        return f"the certificate of {certificate.name}: {error}"
    wanted = public_keys.encrypting_usage(key)
    if wanted not in certificate.key_usage:
        return f"the certificate of {certificate.name} is for signing only, not for encryption"
    return _not_for_mail(certificate)


def is_authority(certificate: Certificate) -> bool:
    """Whether a certificate is a CA's: it says so, or is a root of version 1, which cannot."""
    parsed = certificate.parsed
    old = parsed["tbs_certificate"]["version"].native == _VERSION_1 and certificate.is_root
    return old or (parsed.basic_constraints_value is not None and bool(parsed.ca))


def not_for_issuing(certificate: Certificate) -> str:
    """Return why a certificate, a root or one below it, issues none for mail, or ""."""
    who = certificate.name
    if not is_authority(certificate):
        return f"{who} issued a certificate, but is no CA"
    if "key_cert_sign" not in certificate.key_usage:
        return f"{who} issued a certificate, which its own does not allow"
    if certificate.purposes is not None and not certificate.purposes & _MAIL:
        return f"{who} issues certificates for {_for_what(certificate)}, not for mail"
    return ""


def rank(certificate: Certificate) -> tuple[bool, datetime]:
    """Return a value that is greatest for the best: made for mail expressly, valid longest."""
    return MAIL in (certificate.purposes or ()), certificate.not_after


def best_to_encrypt_to(certificates: Iterable[Certificate]) -> Certificate | None:
    """Return the one of these that mail is best encrypted to, or None."""
    usable = [one for one in certificates if not not_for_encryption(one)]
    return max(usable, key=rank, default=None)


def _not_for_mail(certificate: Certificate) -> str:
    if certificate.purposes is not None and not certificate.purposes & _MAIL:
        what = _for_what(certificate)
        return f"the certificate of {certificate.name} is for {what}, not for mail"
    return ""


def _for_what(certificate: Certificate) -> str:
    words = sorted({_OTHERS.get(p, p) for p in certificate.purposes or ()})
    return printable(" and ".join(words) or "nothing")
