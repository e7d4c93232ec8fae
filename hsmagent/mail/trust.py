"""Whether a signer's certificate leads to a root that the person trusts (RFC 5280, RFC 8550).

Path validation is pyhanko-certvalidator's; nothing is fetched from the net.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hsmagent.errors import UsageError
from hsmagent.mail.chains import relevant
from hsmagent.mail.cms import certificates
from hsmagent.mail.cms.ber import ASN1_ERRORS
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import printable

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
_USAGE = {"digital_signature", "non_repudiation"}
_MAIL = {"email_protection", "any_extended_key_usage"}


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a chain may lead to. crls: DER; required: no CRL for a certificate is a failure."""

    roots: tuple[Certificate, ...]
    crls: tuple[bytes, ...] = ()
    required: bool = False


def system_roots(path: str = SYSTEM_ROOTS) -> tuple[Certificate, ...]:
    """Return the system's roots, unreadable ones left out; none when there is no such file."""
    found: list[Certificate] = []
    text = Path(path).read_bytes() if Path(path).exists() else b""
    for block in text.split(b"-----END CERTIFICATE-----"):
        try:
            found += certificates.read(block + b"-----END CERTIFICATE-----")
        except UsageError:
            continue
    return tuple(found)


def read_crl(path: str) -> bytes:
    """Return a CRL as DER from a PEM or DER file."""
    from asn1crypto import pem

    try:
        data = Path(path).read_bytes()
        return bytes(pem.unarmor(data)[2]) if pem.detect(data) else data
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def judge(
    certificate: Certificate, pool: Sequence[Certificate], anchors: Anchors, moment: datetime
) -> str:
    """Return why the chain of `certificate` does not hold at `moment`, or "" when it does."""
    if not certificate.key_usage & _USAGE:
        return "the certificate is not for signing"
    extended = certificate.parsed.extended_key_usage_value
    if extended is not None and not _MAIL & set(extended.native):
        return "the certificate is not for mail"
    if not anchors.roots:
        return "there is no root to trust"
    return asyncio.run(_validate(certificate, pool, anchors, moment))


async def _validate(
    certificate: Certificate, pool: Sequence[Certificate], anchors: Anchors, moment: datetime
) -> str:
    from asn1crypto import crl
    from pyhanko_certvalidator import CertificateValidator, ValidationContext
    from pyhanko_certvalidator.errors import (
        PathBuildingError,
        PathValidationError,
        ValidationError,
    )

    # It logs what it finds, with tracebacks; we say it in a sentence.
    logging.getLogger("pyhanko_certvalidator").setLevel(logging.CRITICAL)
    try:
        lists = [crl.CertificateList.load(data) for data in anchors.crls]
        others = relevant(certificate, pool, anchors.roots, lists)
        context = ValidationContext(
            trust_roots=[root.parsed for root in anchors.roots],
            other_certs=[other.parsed for other in others],
            crls=lists,
            moment=moment,
            allow_fetching=False,
            revocation_mode="require" if anchors.required else "soft-fail",
            weak_hash_algos={"md2", "md5", "sha1"},
        )
        validator = CertificateValidator(certificate.parsed, validation_context=context)
        await validator.async_validate_path()
    except PathBuildingError:
        return "no chain leads to a trusted root"
    except (PathValidationError, ValidationError) as error:
        return printable(str(error).splitlines()[0], 300)
    except ASN1_ERRORS as error:
        return printable(f"the chain cannot be read: {error}".splitlines()[0], 300)
    return ""
