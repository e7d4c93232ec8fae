"""Which key and certificate sign: by name, or by the address the mail comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha1, sha256

from hsmagent import uri
from hsmagent.errors import UsageError
from hsmagent.mail.address import mailboxes
from hsmagent.mail.cms import certificates
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.store import ENCRYPTING, Entry
from hsmagent.model import FINGERPRINT, Key, fingerprint, printable

WARN_AHEAD = timedelta(days=30)
_SIGNING = {"digital_signature", "non_repudiation"}


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
    """Return the identity that signs for `wanted`; NoKey when there is none.

    wanted: a mail address (alone or as "Name <address>"), a PKCS#11 URI, a fingerprint (SHA-1 or
    SHA-256 of the certificate in hex, or SHA256:… of the ssh key), or the key's label. Of several
    that fit, the one valid longest is taken.
    """
    pairs = _signing_pairs(keys, files)
    matches = selector(wanted)
    fitting = [(key, certificate) for key, certificate in pairs if matches(key, certificate)]
    if not fitting:
        raise NoKey(f"no key signs for {printable(wanted)}; {_there_is(pairs)}")
    usable = [pair for pair in fitting if allow_expired or pair[1].valid_at(now)]
    if not usable:
        certificate = max((pair[1] for pair in fitting), key=lambda c: c.not_after)
        raise UsageError(f"{_validity(certificate, now)}; --allow-expired signs all the same")
    key, certificate = max(usable, key=lambda pair: pair[1].not_after)
    return Identity(key, certificate, _warnings(certificate, now))


def selector(wanted: str) -> Callable[[Key, Certificate], bool]:
    """Return the test that `wanted` stands for (see `find`)."""
    if wanted.startswith("pkcs11:"):
        named = uri.parse(wanted)
        return lambda key, _: named.matches_key(key)
    if wanted.startswith(FINGERPRINT):
        return lambda key, _: _ssh_fingerprint(key) == wanted
    digits = wanted.removeprefix("0x").replace(":", "").lower().removesuffix("!")
    if len(digits) in {40, 64} and set(digits) <= set("0123456789abcdef"):
        return lambda _, c: digits in {sha1(c.der).hexdigest(), sha256(c.der).hexdigest()}  # noqa: S324
    if "@" in wanted:
        # git names the committer as it likes ("J. R. Doe, Jr. <…>"): what counts is in the angles.
        addresses = mailboxes(wanted[max(0, wanted.rfind("<")) :])
        return lambda _, certificate: any(a in certificate.addresses for a in addresses)
    return lambda key, _: key.label == wanted


def for_encryption(keys: Sequence[Key], sender: str, now: datetime) -> Entry:
    """Return our own certificate that mail for `sender` can be encrypted to."""
    names = mailboxes(sender)
    fitting = [
        certificate
        for key in keys
        if key.can_decrypt or key.can_derive
        for certificate in certificates.of_key(key)
        if certificate.key_usage & ENCRYPTING
        and certificate.valid_at(now)
        and any(name in certificate.addresses for name in names)
    ]
    if not fitting:
        raise UsageError(
            f"you have no certificate for {printable(sender) or 'a sender'} to encrypt your own "
            "copy to; --not-to-self does without one"
        )
    return Entry(max(fitting, key=lambda certificate: certificate.not_after))


def _signing_pairs(
    keys: Sequence[Key], files: Sequence[Certificate]
) -> list[tuple[Key, Certificate]]:
    return [
        (key, certificate)
        for key in keys
        if key.can_sign
        for certificate in certificates.of_key(key, files)
        if certificate.key_usage & _SIGNING
    ]


def _there_is(pairs: list[tuple[Key, Certificate]]) -> str:
    names = sorted({", ".join(c.addresses) or c.name for _, c in pairs})
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


def _ssh_fingerprint(key: Key) -> str:
    from base64 import b64decode

    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = serialization.load_der_public_key(key.spki)
        line = public.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return fingerprint(b64decode(line.split()[1]))
