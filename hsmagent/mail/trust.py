"""Whether a signer's certificate leads to a root that the person trusts (RFC 5280, RFC 8550).

Path validation is pyhanko-certvalidator's; the paths are ours (see chains.py), and so is what the
library leaves to its caller: purposes along the path, what a root says of itself, and revocation by
the CRLs at hand. Nothing is fetched from the net.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from asn1crypto import crl

from hsmagent.mail import purpose, verdict
from hsmagent.mail.address import normal
from hsmagent.mail.chains import Chains, Path
from hsmagent.mail.cms import names
from hsmagent.mail.cms.ber import ASN1_ERRORS
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.roots import Bundle
from hsmagent.mail.verdict import NO_CHAIN, NO_CRL, NO_ROOT, TOO_MANY, Verdict

_WEAK = {"md2", "md5", "sha1"}


class Revocation(Enum):
    """For which certificates of a path a CRL must be at hand; one that is at hand always counts."""

    AT_HAND = 0
    LEAF = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a chain may lead to. crls: DER; required: where a missing CRL is a failure.

    bundle: more roots, of which those are read that are needed.
    """

    roots: tuple[Certificate, ...]
    crls: tuple[bytes, ...] = ()
    required: Revocation = Revocation.AT_HAND
    bundle: Bundle | None = None


class Trust:
    """Judges the signers of one message. pool: certificates that may link them to a root."""

    def __init__(
        self,
        anchors: Anchors,
        moment: datetime,
        pool: Iterable[Certificate] = (),
        crls: Iterable[bytes] = (),
    ) -> None:
        self._anchors = anchors
        self._moment = moment
        self._pool = _usable(pool)
        self._roots = _usable(anchors.roots)
        self._chains = Chains(self._pool, (*self._roots, *self._needed()))
        self._lists = [one for data in (*anchors.crls, *crls) if (one := _list(data)) is not None]
        self._known: dict[Certificate, Verdict] = {}
        self._has_all = False

    def judge(self, certificate: Certificate) -> Verdict:
        """Say whether the chain of a signer's certificate holds, and if not, why."""
        if certificate not in self._known:
            self._known[certificate] = self._judge(certificate)
        return self._known[certificate]

    def _judge(self, certificate: Certificate) -> Verdict:
        if why := purpose.not_for_signing(certificate):
            return Verdict(why)
        if not certificate.can_be_validated:
            return Verdict(verdict.UNREADABLE)
        if not self._anchors.roots and self._anchors.bundle is None:
            return Verdict(NO_ROOT)
        import logging

        # The library logs what it finds, with tracebacks; we say it in a sentence.
        logging.getLogger("pyhanko_certvalidator").setLevel(logging.CRITICAL)
        found = self._best(certificate)
        if found.problem == NO_CHAIN and self._anchors.bundle is not None and not self._has_all:
            # A root's own name may be spelled otherwise than in the certificates that it issued.
            self._has_all = True
            everyone = (*self._roots, *_usable(self._anchors.bundle.all()))
            self._chains = Chains(self._pool, everyone)
            found = self._best(certificate)
        return found

    def _needed(self) -> tuple[Certificate, ...]:
        issuers = {one.issuer_der for one in self._pool}
        bundle = self._anchors.bundle
        return _usable(bundle.named(issuers)) if bundle is not None else ()

    def _best(self, certificate: Certificate) -> Verdict:
        """Return the verdict on the first path that holds, else on the one that tells most."""
        worst = Verdict(NO_CHAIN)
        for path in self._chains.paths(certificate):
            found = self._along(path)
            if not found.problem:
                return found
            if worst.problem == NO_CHAIN or found.revoked:
                worst = found
        return Verdict(f"{worst.problem}; {TOO_MANY}") if self._chains.cut else worst

    def _along(self, path: Path) -> Verdict:
        """Judge one path, from a root to the signer."""
        if why := next((w for c in path[:-1] if (w := purpose.not_for_issuing(c))), ""):
            return Verdict(why)
        try:
            if not _may_vouch(path):
                return Verdict(verdict.NAMES.format(path[-1].name))
            return _done(lambda: self._validate(path))
        except ASN1_ERRORS:
            return Verdict(verdict.UNREADABLE)

    async def _validate(self, path: Path) -> Verdict:
        from pyhanko_certvalidator.errors import PathError, ValidationError
        from pyhanko_certvalidator.validate import async_validate_path

        # strict wants CRLs for the certificates that issued CRLs; none are wanted for the path.
        lenient, strict = self._context(path, "none"), self._context(path, "require")
        checked = _library_path(path)
        try:
            await async_validate_path(lenient, checked)
        except (ValidationError, PathError) as error:
            return verdict.of(error, path)
        for depth in range(len(path)):
            prefix = _library_path(path[: depth + 1])
            strict.record_validation(path[depth].parsed, prefix)
        unchecked: dict[str, list[Certificate]] = {}
        for certificate in path[1:]:
            why, revoked = await _revocation(certificate, checked, (lenient, strict))
            if revoked:
                return Verdict(why, revoked=True)
            if why and self._must(certificate, path):
                return Verdict(verdict.unchecked({why: [certificate]})[0])
            if why:
                unchecked.setdefault(why, []).append(certificate)
        return Verdict("", verdict.unchecked(unchecked))

    def _must(self, certificate: Certificate, path: Path) -> bool:
        required = self._anchors.required
        return required is Revocation.ALL or (
            required is Revocation.LEAF and certificate is path[-1]
        )

    def _context(self, path: Path, mode: str) -> Any:
        from pyhanko_certvalidator import ValidationContext

        others = dict.fromkeys((*path[1:-1], *self._chains.signers_of(self._lists)))
        return ValidationContext(
            trust_roots=[_anchor(path[0])],
            other_certs=[other.parsed for other in others],
            crls=self._lists,
            moment=self._moment,
            allow_fetching=False,
            revocation_mode=mode,
            weak_hash_algos=_WEAK,
            retroactive_revinfo=True,
        )


def _done(work: Callable[[], Coroutine[Any, Any, Verdict]]) -> Verdict:
    """Do work that waits for nothing, since nothing is fetched: an event loop takes a fifth of it.

    Should a version of the library wait for something all the same, a loop does it.
    """
    begun = work()
    try:
        begun.send(None)
    except StopIteration as done:
        found: Verdict = done.value
        return found
    begun.close()
    import asyncio

    return asyncio.run(work())


def _usable(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    return tuple(one for one in certificates if one.can_be_validated)


async def _revocation(
    certificate: Certificate, path: Any, contexts: Sequence[Any]
) -> tuple[str, bool]:
    """Return why it is not known to be unrevoked ("" when it is), and whether it was revoked.

    A CRL that revokes counts even where its own issuer may have been revoked.
    """
    from pyhanko_certvalidator.errors import CRLNoMatchesError, CRLValidationError, RevokedError
    from pyhanko_certvalidator.revinfo.validate_crl import verify_crl

    try:
        for context in contexts:
            await verify_crl(certificate.parsed, path, context)
    except RevokedError as error:
        return verdict.revoked(error, certificate), True
    except CRLNoMatchesError:
        return NO_CRL, False
    except CRLValidationError as error:
        return verdict.unusable_crl(error), False
    return "", False


def _list(data: bytes) -> Any:
    """Read a CRL; None when it cannot be read, which is as if it were not there."""
    try:
        found = crl.CertificateList.load(data, strict=True)
        names.key(found.issuer.dump())
        _ = found["tbs_cert_list"]["this_update"].native, found.critical_extensions
    except ASN1_ERRORS:
        return None
    return found


def _library_path(path: Path) -> Any:
    from pyhanko_certvalidator.path import ValidationPath

    between = [one.parsed for one in path[1:-1]]
    return ValidationPath(_anchor(path[0]), between, path[-1].parsed if len(path) > 1 else None)


def _anchor(root: Certificate) -> Any:
    """Return a root as an anchor with its own validity, path length and names, as OpenSSL does.

    Its policies are not applied: the person trusts it anyhow (RFC 5937 leaves that open).
    """
    from pyhanko_certvalidator import authority
    from pyhanko_certvalidator.name_trees import (
        default_excluded_subtrees,
        default_permitted_subtrees,
        process_general_subtrees,
    )
    from pyhanko_certvalidator.policy_decl import PKIXValidationParams

    constraints = root.parsed.name_constraints_value
    permitted, excluded = default_permitted_subtrees(), default_excluded_subtrees()
    if constraints is not None:
        permitted |= process_general_subtrees(constraints["permitted_subtrees"] or ())
        excluded |= process_general_subtrees(constraints["excluded_subtrees"] or ())
    length = root.parsed.max_path_length
    qualifiers = authority.TrustQualifiers(
        standard_parameters=PKIXValidationParams(
            initial_permitted_subtrees=permitted, initial_excluded_subtrees=excluded
        ),
        max_path_length=length,
        max_aa_path_length=length,
        valid_from=root.not_before,
        valid_until=root.not_after,
    )
    return authority.CertTrustAnchor(root.parsed, qualifiers)


def _may_vouch(path: Path) -> bool:
    """Whether every CA of a path may name the signer's addresses (RFC 5280, section 4.2.1.10).

    The library looks at rfc822Name alone, and at the subject's address only without a SAN; here it
    is those that we take for the signer's, SmtpUTF8Mailbox (RFC 9598, section 6) among them.
    """
    for authority in path[:-1]:
        constraints = authority.parsed.name_constraints_value
        if constraints is None:
            continue
        permitted = _mail_bases(constraints["permitted_subtrees"])
        excluded = _mail_bases(constraints["excluded_subtrees"])
        for address in path[-1].addresses:
            if permitted and not any(_within(base, address) for base in permitted):
                return False
            if any(_within(base, address) for base in excluded):
                return False
    return True


def _mail_bases(subtrees: Any) -> list[str]:
    names_of = (subtree["base"] for subtree in subtrees or ())
    return [str(name.native) for name in names_of if name.name == "rfc822_name"]


def _within(base: str, address: str) -> bool:
    """Whether an address lies in a constraint: a mailbox, a host, or ".domain" with all below."""
    domain = address.rpartition("@")[2]
    if "@" in base:
        return normal(base) == address
    host = normal("@" + base.lstrip("."))[1:]
    return domain.endswith("." + host) if base.startswith(".") else domain == host
