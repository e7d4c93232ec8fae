"""Which key and certificate sign: by name, or by the address the mail comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import purpose, selectors
from hsmagent.mail.address import folded, own_addresses
from hsmagent.mail.cms import certificates, oids
from hsmagent.mail.cms.certificates import Certificate, Pair
from hsmagent.mail.keys import KeysFactory
from hsmagent.mail.store import Entry
from hsmagent.model import Key, printable

WARN_AHEAD = timedelta(days=30)


class NoKey(UsageError):
    """No key signs for whom it should."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key with the certificate that speaks for it, and what to warn the person of."""

    key: Key
    certificate: Certificate
    warnings: tuple[str, ...] = ()


def find(
    keys: Sequence[Key],
    wanted: str,
    now: datetime,
    *,
    files: Sequence[Certificate] = (),
    allow_expired: bool = False,
) -> Identity:
    """Return the identity that signs for `wanted` (see selectors.tests). Raises NoKey.

    Only certificates count with which `verify` would accept the signature of a mail. Of several
    that fit, one that is made for mail is preferred to one for everything, then the one that is
    valid longest.
    """
    pairs = _pairs(keys, files)
    fitting: list[Pair] = []
    for test in selectors.tests(wanted):
        fitting = fitting or [pair for pair in pairs if test(*pair)]
    if not fitting:
        raise NoKey(f"no key signs for {printable(wanted)}; {_there_is(pairs)}")
    signing = [pair for pair in fitting if not purpose.not_for_signing(pair[1])]
    if not signing:
        raise NoKey(purpose.not_for_signing(fitting[0][1]))
    usable = [pair for pair in signing if allow_expired or pair[1].valid_at(now)]
    if not usable:
        certificate = max((pair[1] for pair in signing), key=lambda c: c.not_after)
        raise UsageError(f"{_validity(certificate, now)}; --allow-expired signs all the same")
    key, certificate = max(usable, key=lambda pair: purpose.rank(pair[1]))
    return Identity(key, certificate, _warnings(certificate, now))


def all_of(keys: Sequence[Key], files: Sequence[Certificate] = ()) -> list[Identity]:
    """Return every key that signs mail, once with each certificate for that."""
    pairs = _pairs(keys, files)
    return [Identity(*pair) for pair in pairs if not purpose.not_for_signing(pair[1])]


def only(keys: Sequence[Key], files: Sequence[Certificate] = ()) -> str:
    """Return the fingerprint that names the only identity; "" when there is none, or several."""
    found = {one.certificate.fingerprint for one in all_of(keys, files)}
    return found.pop() if len(found) == 1 else ""


def chain(who: Identity, files: Sequence[Certificate] = ()) -> list[Certificate]:
    """Return the certificates that go with a signature: the token's and those of `files`."""
    authorities = certificates.readable(who.key.authorities)
    return certificates.chain(who.certificate, (*authorities, *files))


def incomplete(sent: Sequence[Certificate], leads_to_root: Callable[[Certificate], bool]) -> str:
    """Return the sentence that a certificate is missing between the last one and a root, or ""."""
    if sent[-1].is_root or leads_to_root(sent[-1]):
        return ""
    return (
        f"the chain of {sent[0].name} ends before a root: the certificate of "
        f"{sent[-1].issuer_name} is missing; `hsmagent contacts add FILE` takes it"
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with an identity, in one sentence that says the remedy; `doctor` shows it."""

    certificate: Certificate
    problem: str


def check(
    keys: Sequence[Key],
    now: datetime,
    leads_to_root: Callable[[Certificate], bool],
    files: Sequence[Certificate] = (),
) -> list[Finding]:
    """Return what is wrong with the identities that sign mail: purpose, address, time, chain.

    A key whose certificate is for something else altogether (a PIV card's login) is passed over.
    """
    found: list[Finding] = []
    for key, certificate in _pairs(keys, files):
        if why := purpose.not_for_signing(certificate):
            if certificate.addresses and len(certificates.of_key(key, files)) == 1:
                found.append(Finding(certificate, f"{why}; ask its authority for one that is"))
            continue
        name = certificate.name
        if not certificate.addresses:
            no_address = f"the certificate of {name} names no mail address: nobody sees whose it is"
            found.append(Finding(certificate, no_address))
        found += [Finding(certificate, text) for text in _warnings(certificate, now)]
        sent = chain(Identity(key, certificate), files)
        if why := incomplete(sent, leads_to_root):
            found.append(Finding(certificate, why))
    return found


def for_encryption(keys: Sequence[Key], sender: str, now: datetime) -> Entry:
    """Return our own certificate that mail for `sender` can be encrypted to. Raises UsageError."""
    found = own_entry(keys, sender, now)
    if found is None:
        raise UsageError(
            f"you have no certificate for {printable(sender) or 'a sender'} to encrypt your own "
            "copy to; --not-to-self does without one"
        )
    return found


def finder(keys: KeysFactory, now: datetime) -> Callable[[str], Entry | None]:
    """Return what finds our own certificate for an address; the keys are read once, if at all."""

    @cache
    def held() -> Sequence[Key]:
        try:
            return keys().keys()
        except HsmAgentError:  # the caller's error names the address, which says more
            return ()

    def find(address: str) -> Entry | None:
        found = own_entry(held(), address, now)
        return ours(found, keys) if found is not None else None

    return find


def ours(entry: Entry, keys: KeysFactory) -> Entry:
    """Return an entry of our own with what reads our mail: we, and GnuPG if our keys serve it."""
    try:
        gcm = keys().read_gcm()
    except HsmAgentError:  # no daemon, and so nothing that GnuPG could use
        gcm = True
    return replace(entry, capabilities=frozenset(oids.AES_GCM if gcm else ()))


def own_entry(keys: Sequence[Key], sender: str, now: datetime) -> Entry | None:
    """Return our own certificate that mail for `sender` can be encrypted to, if there is one."""
    able = [key for key in keys if key.opens]
    every = (certificate for _, certificate in certificates.of_keys(able))
    own = [c for c in every if c.valid_at(now) and not purpose.not_for_encryption(c)]
    exact = set(own_addresses(sender))
    loose = {folded(address) for address in exact}
    fitting = [c for c in own if exact & set(c.addresses)]
    fitting = fitting or [c for c in own if loose & set(map(folded, c.addresses))]
    return Entry(max(fitting, key=purpose.rank)) if fitting else None


def _pairs(keys: Sequence[Key], files: Sequence[Certificate]) -> list[Pair]:
    return certificates.of_keys([key for key in keys if key.can_sign], files)


def _there_is(pairs: list[Pair]) -> str:
    signing = (c for _, c in pairs if not purpose.not_for_signing(c))
    names = sorted({", ".join(c.addresses) or c.name for c in signing})
    if not names:
        return "there is no key with a certificate for signing (see `hsmagent keys`)"
    return "there are keys for " + printable("; ".join(names), 400)


def _validity(certificate: Certificate, now: datetime) -> str:
    if now < certificate.not_before:
        start = f"{certificate.not_before:%Y-%m-%d}"
        return f"the certificate of {certificate.name} is valid only from {start}"
    return f"the certificate of {certificate.name} expired on {certificate.not_after:%Y-%m-%d}"


def _warnings(certificate: Certificate, now: datetime) -> tuple[str, ...]:
    if not certificate.valid_at(now):
        return (_validity(certificate, now),)
    if certificate.not_after - now < WARN_AHEAD:
        return (
            f"the certificate of {certificate.name} expires on {certificate.not_after:%Y-%m-%d}",
        )
    return ()
