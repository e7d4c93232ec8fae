"""Paths from a signer to a root, among certificates that anybody may have put into a message.

A path goes from issuer to issuer, each with the name that the one below gives and with the key
that signed it. Path builders try every order of certificates that name each other, and a message
may bring many that do; so a link is followed only if its signature holds, every link is checked
once, and checks and paths are bounded.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from asn1crypto import crl

from hsmagent.errors import UsageError
from hsmagent.mail.cms import names
from hsmagent.mail.cms.ber import ASN1_ERRORS
from hsmagent.mail.cms.certificates import MAX_CHAIN, Certificate

MAX_CHECKS = 400
MAX_PATHS = 24
_MAX_WAITING = 500

Path = tuple[Certificate, ...]


class Chains:
    """The certificates of one message, and the roots. cut: a bound was met before all was tried."""

    def __init__(self, pool: Iterable[Certificate], roots: Sequence[Certificate]) -> None:
        self.cut = False
        self._roots = frozenset(roots)
        self._by_subject: dict[str, list[Certificate]] = {}
        for one in dict.fromkeys((*roots, *pool)):
            self._by_subject.setdefault(one.subject, []).append(one)
        self._checked: dict[tuple[bytes, bytes], bool] = {}

    def paths(self, leaf: Certificate) -> Iterator[Path]:
        """Yield the paths from a root down to `leaf`, the shortest first."""
        waiting: deque[Path] = deque([(leaf,)])
        found = 0
        while waiting:
            path = waiting.popleft()
            if path[0] in self._roots:
                found += 1
                if found > MAX_PATHS:
                    self.cut = True
                    return
                yield path
                continue
            for issuer in self._issuers(path[0]):
                if len(path) >= MAX_CHAIN or len(waiting) >= _MAX_WAITING:
                    self.cut = True
                    break
                if all((c.subject, c.spki) != (issuer.subject, issuer.spki) for c in path):
                    waiting.append((issuer, *path))

    def signers_of(self, lists: Iterable[crl.CertificateList]) -> list[Certificate]:
        """Return the certificates whose keys signed these CRLs."""
        found: list[Certificate] = []
        for one in lists:
            try:
                subject = names.key(one.issuer.dump())
                parts = one["signature_algorithm"], one["signature"], one["tbs_cert_list"]
            except ASN1_ERRORS:
                continue
            named = self._by_subject.get(subject, ())
            found += (issuer for issuer in named if self._signed(issuer, one.sha256, *parts))
        return found

    def _issuers(self, child: Certificate) -> list[Certificate]:
        parsed = child.parsed
        parts = parsed["signature_algorithm"], parsed["signature_value"], parsed["tbs_certificate"]
        named = self._by_subject.get(child.issuer, ())
        return [i for i in named if i != child and self._signed(i, child.der, *parts)]

    def _signed(
        self, issuer: Certificate, what: bytes, algorithm: Any, signature: Any, signed: Any
    ) -> bool:
        """Whether the issuer's key made this signature. what: names what is signed, uniquely."""
        named = (issuer.spki, what)
        if named not in self._checked:
            if len(self._checked) >= MAX_CHECKS:
                self.cut = True
                return False
            self._checked[named] = _verifies(issuer, algorithm, signature, signed)
        return self._checked[named]


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
    except (InvalidSignature, UnsupportedAlgorithm, UsageError, *ASN1_ERRORS):
        return False
    return True
