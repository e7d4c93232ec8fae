"""Which certificates of a heap have anything to do with a chain from a signer to a root.

Path builders try every order of certificates that name each other as issuers, and a message may
bring many that do: eight are enough for a minute's work. So a certificate is let through only if
its signature shows that it belongs between the signer and a root that is trusted.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from asn1crypto import crl

from hsmagent.mail.cms.ber import ASN1_ERRORS
from hsmagent.mail.cms.certificates import Certificate


def relevant(
    leaf: Certificate,
    pool: Iterable[Certificate],
    roots: Sequence[Certificate],
    crls: Sequence[Any],
) -> list[Certificate]:
    """Return those that lead to a root, link by link, from `leaf` or from who signed a CRL."""
    everyone = tuple(dict.fromkeys((*roots, *pool)))
    issuers: dict[Certificate, list[Certificate]] = {}
    waiting = [leaf, *(c for c in everyone if any(_signed_list(c, one) for one in crls))]
    while waiting:
        child = waiting.pop()
        if child not in issuers:
            issuers[child] = [one for one in everyone if one != child and _issued(one, child)]
            waiting += issuers[child]
    anchored = set(roots)
    grown = True
    while grown:
        more = {c for c, above in issuers.items() if c not in anchored and anchored & set(above)}
        anchored |= more
        grown = bool(more)
    return [c for c in issuers if c in anchored and c != leaf]


def _issued(issuer: Certificate, child: Certificate) -> bool:
    """Whether `issuer` has the name that `child` gives, and the key that signed it."""
    signed = child.parsed
    return bool(issuer.parsed.subject == signed.issuer) and _verifies(
        issuer, signed["signature_algorithm"], signed["signature_value"], signed["tbs_certificate"]
    )


def _signed_list(issuer: Certificate, one: crl.CertificateList) -> bool:
    return bool(issuer.parsed.subject == one.issuer) and _verifies(
        issuer, one["signature_algorithm"], one["signature"], one["tbs_cert_list"]
    )


def _verifies(issuer: Certificate, algorithm: Any, signature: Any, signed: Any) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    from hsmagent.mail.cms.signature import verify

    try:
        kind = algorithm.signature_algo
        verify(
            spki=issuer.spki,
            algorithm=algorithm,
            signature=signature.native,
            attributes=signed.dump(),
            digest=None,
            digest_name="sha512" if kind == "ed25519" else algorithm.hash_algo,
        )
    except (InvalidSignature, UnsupportedAlgorithm, *ASN1_ERRORS):
        return False
    return True
