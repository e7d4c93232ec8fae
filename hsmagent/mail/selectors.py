"""The ways to name a key: those of gpgsm(1), "How to specify a user ID", and some of our own.

Each test tells whether a key, with its certificate, is meant.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import sha1, sha256

from hsmagent.errors import UsageError
from hsmagent.mail.address import folded, mailboxes
from hsmagent.mail.cms import names
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import FINGERPRINT, Key, fingerprint

Test = Callable[[Key, Certificate], bool]

_HEX = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2}:?)+)!?")
_ID_LENGTHS = {8, 16, 40, 64}  # the end of the SHA-1, all of it, the SHA-256
_SHA256_LENGTH = 64
_DN = re.compile(r"/?[A-Za-z][A-Za-z0-9.-]*=")
_COMMA = re.compile(r"(?<!\\),")
_OTHER_SHORT = {"e": "email", "emailaddress": "email", "1.2.840.113549.1.9.1": "email", "s": "st"}


def tests(wanted: str) -> Iterable[Test]:  # noqa: PLR0911 (one for each way of naming)
    """Return the tests that `wanted` stands for; a later one counts only when none before fits.

    A PKCS#11 URI, SHA256:… (the ssh key), a fingerprint or key id in hex, &KEYGRIP, #SERIAL or
    #SERIAL/ISSUER, a subject's name in RFC 4514's form, an address (alone, in angles or after a
    name), a label, or a part of the certificate's name.
    """
    if wanted.startswith("pkcs11:"):
        from hsmagent import uri

        named = uri.parse(wanted)
        return (lambda key, _: named.matches_key(key),)
    if wanted.startswith(FINGERPRINT):
        return (lambda key, _: _ssh_fingerprint(key) == wanted,)
    if wanted.startswith("&"):
        from hsmagent.mail import keygrip

        return (lambda key, _: keygrip.of(key) == wanted[1:].upper(),)
    if wanted.startswith("#"):
        return (_by_serial(wanted[1:]),)
    if digits := _digits(wanted):
        return (lambda _, c: _has_digits(c, digits), lambda key, _: key.label == wanted)
    if _DN.match(wanted):
        return (lambda _, c: _parts(c.subject_der) == _read_dn(wanted),)
    if "@" in wanted:
        return _by_address(wanted)
    return (
        lambda key, _: key.label == wanted,
        lambda _, certificate: wanted.casefold() in certificate.name.casefold(),
    )


def _by_address(wanted: str) -> tuple[Test, ...]:
    # git puts any name before the address ("J. R. Doe, Jr. <…>"): what is in angles counts.
    exact = set(mailboxes(wanted[max(0, wanted.rfind("<")) :]))
    loose = {folded(address) for address in exact}
    return (
        lambda _, c: any(address in exact for address in c.addresses),
        lambda _, c: any(folded(address) in loose for address in c.addresses),
    )


def _digits(wanted: str) -> str:
    found = _HEX.fullmatch(wanted)
    digits = found.group(1).replace(":", "").lower() if found else ""
    return digits if len(digits) in _ID_LENGTHS else ""


def _has_digits(certificate: Certificate, digits: str) -> bool:
    if len(digits) == _SHA256_LENGTH:
        return sha256(certificate.der).hexdigest() == digits
    return sha1(certificate.der).hexdigest().endswith(digits)  # noqa: S324 - a name


def _by_serial(wanted: str) -> Test:
    number, _, issuer = wanted.partition("/")
    try:
        serial = int(number, 16)
    except ValueError:
        raise UsageError(f"#{number[:40]!r} is not a certificate's number in hex") from None
    return lambda _, c: (
        c.serial == serial and (not issuer or _parts(c.issuer_der) == _read_dn(issuer))
    )


def _parts(name: bytes) -> list[str]:
    """Return the attributes of a Name, sorted: RFC 4514 and OpenSSL write them in either order."""
    return sorted(f"{kind}={value}".casefold() for kind, value in names.attributes(name))


def _read_dn(text: str) -> list[str]:
    found: list[str] = []
    for part in _COMMA.split(text.removeprefix("/")):
        kind, _, value = part.partition("=")
        kind = kind.strip().casefold()
        plain = re.sub(r"\\(.)", r"\1", value.strip())
        found.append(f"{_OTHER_SHORT.get(kind, kind)}={plain}".casefold())
    return sorted(found)


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
