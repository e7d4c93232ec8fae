"""Certification requests (PKCS #10, RFC 2986) and self-signed certificates (RFC 5280) for mail.

Pure: what is to be signed goes out, the signature comes in, since the key lies in a token. What
they ask for is what mail needs: the addresses, emailProtection, and key usage by the kind of key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from hsmagent.errors import UsageError
from hsmagent.mail.cms.der import NULL, integer, octets, oid, sequence, set_of, time, tlv
from hsmagent.mail.cms.oids import ECDSA_WITH, ID_ED25519
from hsmagent.model import Key, KeyType, Scheme, printable

_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"  # RFC 2985, section 5.4.2
_SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"  # RFC 9598
_SHA256_WITH_RSA = "1.2.840.113549.1.1.11"
_TRUE = b"\x01\x01\xff"
_UTF8_STRING = 0x0C
_BIT_STRING = 0x03


@dataclass(frozen=True, slots=True)
class Named:
    """Whom a certificate is to name: X.509 subject, and mail addresses."""

    subject: x509.Name
    addresses: tuple[str, ...]


def named(subject: str, addresses: Sequence[str]) -> Named:
    """Read the command line: an RFC 4514 name, or none; addresses. Raises UsageError."""
    for address in addresses:
        local, _, domain = address.rpartition("@")
        if (
            not local
            or not domain
            or not domain.isascii()
            or printable(address, 320) != address
            or " " in address
        ):
            raise UsageError(f"{printable(address)!r} is no mail address")
    if not addresses:
        raise UsageError("give the mail address that the certificate is for: --email ADDRESS")
    if not subject:
        return Named(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, addresses[0][:64])]),
            tuple(addresses),
        )
    try:
        return Named(x509.Name.from_rfc4514_string(subject), tuple(addresses))
    except ValueError:
        raise UsageError(
            f"{printable(subject)!r} is no name; give one such as CN=Alice Example,O=Example"
        ) from None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How a key signs certificates, and the AlgorithmIdentifier that says so."""

    scheme: Scheme
    identifier: bytes


def algorithm(key: Key) -> Algorithm:
    """Return how this key signs: SHA-256, or what fits a larger curve."""
    if key.key_type is KeyType.RSA:
        return Algorithm(Scheme.RSA_PKCS1_SHA256, sequence(oid(_SHA256_WITH_RSA), NULL))
    if key.key_type is KeyType.ED25519:
        return Algorithm(Scheme.ED25519, sequence(oid(ID_ED25519)))
    for most, scheme in ((256, Scheme.ECDSA_SHA256), (384, Scheme.ECDSA_SHA384)):
        if key.bits <= most:
            return Algorithm(scheme, sequence(oid(ECDSA_WITH[scheme.hash_name])))
    return Algorithm(Scheme.ECDSA_SHA512, sequence(oid(ECDSA_WITH["sha512"])))


def request_info(key: Key, who: Named) -> bytes:
    """Return CertificationRequestInfo, which the key is to sign."""
    extensions = sequence(*_extensions(key, who))
    attribute = sequence(oid(_EXTENSION_REQUEST), set_of(extensions))
    return sequence(integer(0), who.subject.public_bytes(), key.spki, tlv(0xA0, attribute))


def certificate_info(key: Key, who: Named, serial: int, first: datetime, last: datetime) -> bytes:
    """Return TBSCertificate of a self-signed certificate, which the key is to sign."""
    name = who.subject.public_bytes()
    identifier = x509.SubjectKeyIdentifier.from_public_key(load_der_public_key(key.spki))  # type: ignore[arg-type] # of a kind that has one
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    extensions = sequence(
        _extension(constraints, critical=True), *_extensions(key, who), _extension(identifier)
    )
    return sequence(
        tlv(0xA0, integer(2)),
        integer(serial),
        algorithm(key).identifier,
        name,
        sequence(time(first), time(last)),
        name,
        key.spki,
        tlv(0xA3, extensions),
    )


def signed(info: bytes, key: Key, signature: bytes) -> bytes:
    """Return the request or certificate; `signature` as `model.Signer` gives it."""
    if key.key_type is KeyType.EC:
        half = len(signature) // 2
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        signature = encode_dss_signature(r, s)
    return sequence(info, algorithm(key).identifier, tlv(_BIT_STRING, b"\0" + signature))


def _extensions(key: Key, who: Named) -> list[bytes]:
    return [
        _extension(_usage(key), critical=True),
        _extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])),
        _extension(x509.SubjectAlternativeName([_mailbox(a) for a in who.addresses])),
    ]


def _usage(key: Key) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key.key_type is KeyType.RSA,
        data_encipherment=False,
        key_agreement=key.key_type is KeyType.EC,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _mailbox(address: str) -> x509.GeneralName:
    """Return the address; one with a local part beyond ASCII has a form of its own (RFC 9598)."""
    if address.isascii():
        return x509.RFC822Name(address)
    value = tlv(_UTF8_STRING, address.encode())
    return x509.OtherName(ObjectIdentifier(_SMTP_UTF8_MAILBOX), value)


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    flag = _TRUE if critical else b""
    return sequence(oid(value.oid.dotted_string), flag, octets(value.public_bytes()))
