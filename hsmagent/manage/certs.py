"""`hsmagent cert …`: requests, and the certificates that lie in tokens."""

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509 import load_der_x509_certificate

from hsmagent.errors import TokenError, UsageError
from hsmagent.mail.cms import certificates, der
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.oids import ID_SIGNED_DATA
from hsmagent.manage import pins, requests
from hsmagent.manage.person import confirm
from hsmagent.manage.place import Place, Token
from hsmagent.manage.proof import sign
from hsmagent.manage.requests import Named
from hsmagent.manage.worker import ModuleSaid, Worker
from hsmagent.model import Key, printable
from hsmagent.worker import spec
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import Create, Destroy

_SIGNED_DATA = der.oid(ID_SIGNED_DATA)
_TRUE, _FALSE = b"\1", b"\0"
_EARLY = timedelta(minutes=5)  # clocks differ
_MOST_DAYS = 3650
_SERIAL_BITS = 152  # 19 bytes, positive


async def request(place: Place, name: str, who: Named) -> str:
    """`cert request`: a request for the key, in PEM."""
    token, key = await place.key(name)
    _need_signing(key)
    pins.expect_login(place, token)
    info = requests.request_info(key, who)
    async with pins.login(place, token) as worker:
        made = await _signed(worker, token, key, info)
    return der.pem("CERTIFICATE REQUEST", made).decode()


async def self_sign(place: Place, name: str, who: Named, days: int) -> str:
    """`cert self-sign`: a certificate by the key itself, put beside it; in PEM."""
    token, key = await place.key(name)
    _need_signing(key)
    if not 0 < days <= _MOST_DAYS:
        raise UsageError(f"a certificate is good for 1 to {_MOST_DAYS} days")
    pins.expect_login(place, token)
    _agree_to_replace(place, token, key)
    now = datetime.now(UTC).replace(microsecond=0)
    serial = secrets.randbits(_SERIAL_BITS - 1) | 1 << (_SERIAL_BITS - 2)
    info = requests.certificate_info(key, who, serial, now - _EARLY, now + timedelta(days=days))
    async with pins.login(place, token) as worker:
        made = await _signed(worker, token, key, info)
        await _put(worker, token, key, Certificate(made))
    await _see(place, token, key, [Certificate(made)])
    place.person.say(f"The certificate is on {token.name}, beside “{printable(key.label)}”.")
    return der.pem("CERTIFICATE", made).decode()


def _need_signing(key: Key) -> None:
    if not key.can_sign:
        raise UsageError(f"“{printable(key.label)}” does not sign")


async def _signed(worker: Worker, token: Token, key: Key, info: bytes) -> bytes:
    scheme = requests.algorithm(key).scheme
    return requests.signed(info, key, await sign(worker, token, key, scheme, info))


# -- in tokens ---------------------------------------------------------------------------------


async def put(place: Place, content: bytes, key_name: str) -> None:
    """`cert import`: puts a certificate beside its key, and its authorities' into the token.

    key_name: the key; "" for the one whose public half a certificate has.
    """
    found = read(content)
    if not found:
        raise UsageError("the file holds no certificate")
    token, key, own = await _match(place, found, key_name)
    there = {certificate.der for certificate in in_token(token)}
    issuers = [c for c in certificates.chain(own, found)[1:] if c.der not in there]
    if own.der in key.certificates and not issuers:
        place.person.say(f"it is on {token.name} already")
        return
    pins.expect_login(place, token)
    if own.der not in key.certificates:
        _agree_to_replace(place, token, key)
    async with pins.login(place, token) as worker:
        if own.der not in key.certificates:
            await _put(worker, token, key, own)
        for issuer in issuers:
            label = issuer.name.encode()[:60].decode(errors="ignore")
            key_id = hashlib.sha1(issuer.spki, usedforsecurity=False).digest()
            await worker.ask(Create(token.slot, _template(issuer, key_id, label)), Done)
    await _see(place, token, key, [own, *issuers])
    more = f", with {len(issuers)} of its authorities" if issuers else ""
    place.person.say(
        f"The certificate of {printable(own.name)} is on {token.name},"
        f" beside “{printable(key.label)}”{more}."
    )


def read(content: bytes) -> list[Certificate]:
    """Return the certificates in a file: PEM, DER, or PKCS #7 in either. Raises UsageError."""
    try:
        if b"-----BEGIN PKCS7-----" in content:
            found = pkcs7.load_pem_pkcs7_certificates(content)
        elif content[:1] == b"\x30" and _SIGNED_DATA in content[:20]:
            found = pkcs7.load_der_pkcs7_certificates(content)
        else:
            return certificates.read(content)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("the file's PKCS #7 cannot be read") from None
    return [Certificate(each.public_bytes(Encoding.DER)) for each in found]


async def _match(
    place: Place, found: list[Certificate], key_name: str
) -> tuple[Token, Key, Certificate]:
    """Return the key whose public half one of the certificates has."""
    if key_name:
        candidates = [await place.key(key_name)]
    else:
        candidates = [(token, key) for token in await place.chosen() for key in token.keys]
    pairs = [(t, k, c) for t, k in candidates for c in found if c.spki == k.spki]
    if not pairs:
        raise UsageError("no key here has the public key of a certificate in the file")
    if len(pairs) > 1:
        raise UsageError("more than one key here has it: name the token (--token) or key (--key)")
    return pairs[0]


def _agree_to_replace(place: Place, token: Token, key: Key) -> None:
    if not key.id or sum(other.id == key.id for other in token.keys) > 1:
        raise UsageError("the key has no id of its own, by which a certificate could find it")
    for old in map(Certificate, key.certificates):
        warning = (
            f"This replaces the certificate of “{printable(key.label)}” on {token.name}:"
            f" {printable(old.name)}, by {_issuer(old)},"
            f" until {old.not_after:%Y-%m-%d}."
        )
        confirm(place.person, warning, key.label or key.id.hex())


def _template(certificate: Certificate, key_id: bytes, label: str) -> tuple[tuple[int, bytes], ...]:
    return (
        (spec.CKA_CLASS, spec.ulong(spec.CKO_CERTIFICATE)),
        (spec.CKA_CERTIFICATE_TYPE, spec.ulong(spec.CKC_X_509)),
        (spec.CKA_TOKEN, _TRUE),
        (spec.CKA_PRIVATE, _FALSE),
        (spec.CKA_ID, key_id),
        # OpenSC gives a key the label of its certificate.
        (spec.CKA_LABEL, label.encode()),
        (spec.CKA_SUBJECT, certificate.subject_der),
        (spec.CKA_ISSUER, certificate.issuer_der),
        (spec.CKA_SERIAL_NUMBER, certificate.serial_der),
        (spec.CKA_VALUE, certificate.der),
    )


async def _put(worker: Worker, token: Token, key: Key, certificate: Certificate) -> None:
    if key.certificates:
        await worker.ask(Destroy(token.slot, _of(key)), Done)
    try:
        await worker.ask(Create(token.slot, _template(certificate, key.id, key.label)), Done)
    except ModuleSaid:
        # The old certificate comes back: on a card the key could not be found without one.
        for old in map(Certificate, key.certificates):
            await worker.ask(Create(token.slot, _template(old, key.id, key.label)), Done)
        raise


def _of(key: Key) -> tuple[tuple[int, bytes], ...]:
    return ((spec.CKA_CLASS, spec.ulong(spec.CKO_CERTIFICATE)), (spec.CKA_ID, key.id))


async def _see(place: Place, token: Token, key: Key, put: Sequence[Certificate]) -> None:
    """Look for the key's certificate, the first of these, beside it, and for all in the token.

    OpenSC 0.26 says OK to what a SmartCard-HSM refuses to write, and goes on in another file.
    """
    now = await place.again(token)
    itself = [one for one in now.keys if (one.id, one.spki) == (key.id, key.spki)]
    beside = {each for one in itself for each in one.certificates}
    there = {certificate.der for certificate in in_token(now)}
    if put[0].der not in beside or not there.issuperset(each.der for each in put):
        raise TokenError(f"{token.name} said yes, but does not show the certificate beside its key")


def in_token(token: Token) -> list[Certificate]:
    """Return every certificate in a token that can be read."""
    found = []
    for thing in token.info.objects:
        values = dict(thing.attributes)
        if values.get(spec.CKA_CLASS) == spec.ulong(spec.CKO_CERTIFICATE):
            with suppress(UsageError):  # one that cannot be read must not hide the others
                found.append(Certificate(values.get(spec.CKA_VALUE, b"")))
    return found


def _issuer(certificate: Certificate) -> str:
    issuer = load_der_x509_certificate(certificate.der).issuer
    return printable(issuer.rfc4514_string())


async def delete(place: Place, name: str) -> None:
    """`cert delete`: a key's certificates; the key stays."""
    token, key = await place.key(name)
    if not key.certificates:
        raise UsageError(f"“{printable(key.label)}” has no certificate")
    if token.card:
        raise UsageError(
            f"{token.name} keeps the public key in the certificate alone, and nobody could find"
            f" “{printable(key.label)}” without it: `hsmagent cert self-sign` or `cert import` puts"
            " another in its place, `hsmagent key delete --with-cert` deletes both"
        )
    names = "; ".join(printable(Certificate(each).name) for each in key.certificates)
    warning = f"This deletes the certificate of “{printable(key.label)}” on {token.name}: {names}."
    pins.expect_login(place, token)
    confirm(place.person, warning, key.label or key.id.hex())
    async with pins.login(place, token) as worker:
        await worker.ask(Destroy(token.slot, _of(key)), Done)
    left = {certificate.der for certificate in in_token(await place.again(token))}
    if left.intersection(key.certificates):
        raise TokenError(f"{token.name} said yes, but still shows the certificate")
    place.person.say(f"“{printable(key.label)}” has no certificate any more")


async def export(place: Place, name: str) -> str:
    """`cert export`: a key's certificates in PEM. Needs no PIN."""
    _, key = await place.key(name)
    if not key.certificates:
        raise UsageError(f"“{printable(key.label)}” has no certificate")
    return "".join(certificates.pem(Certificate(each)) for each in key.certificates)


async def listing(place: Place) -> str:
    """`cert list`: a line for each certificate in the named token, or in all. Needs no PIN."""
    lines = []
    for token in await place.chosen():
        owners = {each: key.label for key in token.keys for each in key.certificates}
        for certificate in in_token(token):
            owner = owners.get(certificate.der)
            where = f"key “{printable(owner)}”" if owner else "an authority's"
            lines.append(
                f"{printable(certificate.name)}, by {_issuer(certificate)},"
                f" until {certificate.not_after:%Y-%m-%d} ({token.name}, {where})"
            )
    return "\n".join(lines)
