"""gpgsm's lists of certificates: for a person, and with colons (GnuPG's doc/DETAILS)."""

from collections.abc import Iterator, Sequence
from hashlib import sha1

from hsmagent.mail import keygrip, purpose
from hsmagent.mail.cms import names
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import Key, KeyType, printable

_STAMP = "%Y%m%dT%H%M%S"
_ALGORITHMS: dict[str, int] = {KeyType.RSA: 1, KeyType.EC: 18, KeyType.ED25519: 22}
_USAGES = {
    "digital_signature": "digitalSignature",
    "non_repudiation": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "key_agreement": "keyAgreement",
}

Listed = tuple[Key | None, Certificate]


def colons(listed: Sequence[Listed], *, secret: bool, grips: bool) -> Iterator[str]:
    """Yield the lines for a program."""
    for key, certificate in listed:
        mark = fingerprint(certificate)
        bits, algorithm = _bits(key, certificate), _ALGORITHMS.get(certificate.key_type, 0)
        yield ":".join(
            (
                "crs" if secret else "crt",
                *("", str(bits), str(algorithm), mark[-16:]),
                certificate.not_before.strftime(_STAMP),
                certificate.not_after.strftime(_STAMP),
                _serial(certificate),
                *("", _escaped(names.distinguished(certificate.issuer_der)), ""),
                *(_capabilities(certificate), "", "", "", "", "", "", ""),
            )
        )
        yield f"fpr:::::::::{mark}::::"
        if grips and key is not None and (grip := keygrip.of(key)):
            yield f"grp:::::::::{grip}:"
        yield f"uid:::::::::{_escaped(names.distinguished(certificate.subject_der))}::"
        for address in certificate.addresses:
            yield f"uid:::::::::{_escaped(f'<{address}>')}::"


def text(listed: Sequence[Listed]) -> Iterator[str]:
    """Yield the lines for a person."""
    for key, certificate in listed:
        mark = fingerprint(certificate)
        bits = _bits(key, certificate)
        start, end = certificate.not_before, certificate.not_after
        uses = [name for bit, name in _USAGES.items() if bit in certificate.key_usage]
        yield f"           ID: 0x{mark[-8:]}"
        yield f"          S/N: {_serial(certificate)}"
        yield f"       Issuer: /{printable(names.distinguished(certificate.issuer_der), 400)}"
        yield f"      Subject: /{printable(names.distinguished(certificate.subject_der), 400)}"
        for address in certificate.addresses:
            yield f"          aka: {printable(address)}"
        yield f"     validity: {start:%Y-%m-%d %H:%M:%S} through {end:%Y-%m-%d %H:%M:%S}"
        yield f"     key type: {f'{bits} bit ' if bits else ''}{certificate.key_type}"
        yield f"    key usage: {' '.join(uses)}"
        yield "  fingerprint: " + ":".join(mark[at : at + 2] for at in range(0, 40, 2))
        yield ""


def fingerprint(certificate: Certificate) -> str:
    """Return the SHA-1 by which GnuPG names a certificate."""
    return sha1(certificate.der).hexdigest().upper()  # noqa: S324 - a name


def _serial(certificate: Certificate) -> str:
    digits = f"{certificate.serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _bits(key: Key | None, certificate: Certificate) -> int:
    if key is not None and key.bits:
        return key.bits
    from hsmagent.mail.cms import public_keys

    try:
        return int(getattr(public_keys.load(certificate.spki), "key_size", 256))
    except public_keys.UnknownKind:
        return 0


def _capabilities(certificate: Certificate) -> str:
    encrypts = "" if purpose.not_for_encryption(certificate) else "e"
    signs = "" if purpose.not_for_signing(certificate) else "s"
    return encrypts + signs + (encrypts + signs).upper()


def _escaped(value: str) -> str:
    """Escape as GnuPG does: a colon would start another field."""
    return printable(value, 1000).replace("\\", "\\x5c").replace(":", "\\x3a")
