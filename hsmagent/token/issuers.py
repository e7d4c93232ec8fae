"""The certificates on a token that belong to CAs: cards hold whole chains."""

from collections.abc import Sequence
from dataclasses import replace

from hsmagent.model import Key

_AUTHORITIES_MAX = 16


def without_issuers(keys: Sequence[Key]) -> list[Key]:
    """Leave out the keys of CAs, which issued another certificate here: they are on no card."""
    names = {key.spki: [_names(der) for der in key.certificates] for key in keys}
    issuers = {issuer for pairs in names.values() for subject, issuer in pairs if issuer != subject}
    return [key for key in keys if not any(subject in issuers for subject, _ in names[key.spki])]


def authorities_of(certificates: Sequence[Key]) -> tuple[bytes, ...]:
    """Return the certificates (DER) whose subjects issued another certificate of these."""
    names = {der: _names(der) for key in certificates for der in key.certificates}
    issuers = {issuer for subject, issuer in names.values() if issuer != subject}
    found = [der for der, (subject, _) in names.items() if subject in issuers]
    return tuple(found[:_AUTHORITIES_MAX])


def with_authorities(authorities: tuple[bytes, ...], keys: Sequence[Key]) -> tuple[Key, ...]:
    """Return the keys; those with a certificate get the certificates of the token's authorities."""
    return tuple(replace(k, authorities=authorities) if k.certificates else k for k in keys)


def _names(der: bytes) -> tuple[bytes, bytes]:
    """Return a certificate's subject and issuer."""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        return certificate.subject.public_bytes(), certificate.issuer.public_bytes()
    except ValueError:
        return b"", b""
