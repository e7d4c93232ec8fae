"""Building SignedData (RFC 5652, section 5) with the profile of RFC 8551.

The content never passes through here: `wrap` gives what stands before and after it.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from hsmagent.errors import UsageError
from hsmagent.mail.cms import der, oids
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import Key, KeyType, Scheme

_STRENGTHS = ("sha256", "sha384", "sha512")


def attributes(
    digest: bytes, scheme: Scheme, certificate: Certificate, moment: datetime, *, gcm: bool = True
) -> bytes:
    """Return the DER SET OF signed attributes over a content whose digest is `digest`.

    gcm: say that the signer reads AES-GCM.
    """
    return der.set_of(
        _attribute(oids.ID_CONTENT_TYPE, der.oid(oids.ID_DATA)),
        _attribute(oids.ID_MESSAGE_DIGEST, der.octets(digest)),
        _attribute(oids.ID_SIGNING_TIME, der.time(moment)),
        _attribute(oids.ID_AA_SIGNING_CERTIFICATE_V2, _signing_certificate(certificate)),
        _attribute(oids.SMIME_CAPABILITIES, _capabilities(scheme, gcm=gcm)),
    )


def signer_info(
    certificate: Certificate, scheme: Scheme, signed_attributes: bytes, signature: bytes
) -> bytes:
    """Return the SignerInfo (section 5.3); `signature` as MailKeys gives it."""
    return der.sequence(
        der.integer(1),
        certificate.issuer_and_serial,
        digest_algorithm(scheme),
        b"\xa0" + signed_attributes[1:],
        _signature_algorithm(scheme),
        der.octets(_signature_value(scheme, signature)),
    )


def wrap(
    info: bytes, scheme: Scheme, certificates: Sequence[Certificate], length: int | None
) -> tuple[bytes, bytes]:
    """Return what comes before and after the content: a whole ContentInfo around it.

    length: of the content that goes in between, or None for a detached signature.
    """
    content = der.oid(oids.ID_DATA)
    if length is not None:
        octets = der.header(0x04, length)
        content += der.header(0xA0, len(octets) + length) + octets
    inside = der.header(0x30, len(content) + (length or 0))
    before = der.integer(1) + der.set_of(digest_algorithm(scheme)) + inside + content
    after = der.tlv(0xA0, *sorted(certificate.der for certificate in certificates))
    after += der.set_of(info)
    total = len(before) + (length or 0) + len(after)
    return der.content_info(oids.ID_SIGNED_DATA, total) + before, after


def digest_algorithm(scheme: Scheme) -> bytes:
    """Return the AlgorithmIdentifier, without parameters (RFC 5754, section 2)."""
    return der.sequence(der.oid(oids.DIGESTS[oids.digest_name(scheme)]))


def best_scheme(key: Key, *, pss: bool = False, digest: str = "") -> Scheme:
    """Return the scheme for a key; without a `digest`, the hash is as strong as the key's curve.

    Raises UsageError when the key cannot sign with that digest.
    """
    known: tuple[str, ...]
    if key.key_type is KeyType.ED25519:
        kind, known = "", _STRENGTHS[2:]
    elif key.key_type is KeyType.RSA:
        kind, known = "rsa-pss-" if pss else "rsa-pkcs1-", _STRENGTHS
    else:
        strong = sum(key.bits > bits for bits in (256, 384))
        kind, known = "ecdsa-", (_STRENGTHS[strong], *_STRENGTHS)
    if digest and digest not in known:
        raise UsageError(f"this key does not sign with {digest}; use {known[0]}")
    return Scheme(kind + (digest or known[0])) if kind else Scheme.ED25519


def _attribute(kind: str, value: bytes) -> bytes:
    return der.sequence(der.oid(kind), der.set_of(value))


def _signing_certificate(certificate: Certificate) -> bytes:
    """SigningCertificateV2 (RFC 5035, section 3); SHA-256 is the default and so left out."""
    issuer = der.sequence(der.tlv(0xA4, certificate.issuer_der))
    identifier = der.sequence(
        der.octets(hashlib.sha256(certificate.der).digest()),
        der.sequence(issuer, certificate.serial_der),
    )
    return der.sequence(der.sequence(identifier))


def _capabilities(scheme: Scheme, *, gcm: bool) -> bytes:
    """Return the SMIMECapabilities: the ciphers that we read, the best first (RFC 8551, 2.5.2)."""
    authenticated = (oids.AES_256_GCM, oids.AES_128_GCM) if gcm else ()
    ciphers = (*authenticated, oids.AES_256_CBC, oids.AES_128_CBC)
    known = [der.sequence(der.oid(cipher)) for cipher in ciphers]
    if scheme.value.startswith("ecdsa"):
        wrap_with = der.sequence(der.oid(oids.AES_256_WRAP))
        known.append(der.sequence(der.oid(oids.DH_STD_SHA256KDF), wrap_with))
    return der.sequence(*known)


def _signature_algorithm(scheme: Scheme) -> bytes:
    if scheme is Scheme.ED25519:
        return der.sequence(der.oid(oids.ID_ED25519))
    if scheme.value.startswith("ecdsa"):
        return der.sequence(der.oid(oids.ECDSA_WITH[scheme.hash_name]))
    if scheme.value.startswith("rsa-pss"):
        return der.sequence(der.oid(oids.ID_RSASSA_PSS), _pss_parameters(scheme))
    return der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL)


def _pss_parameters(scheme: Scheme) -> bytes:
    """RSASSA-PSS-params (RFC 4055, section 3.1)."""
    digest = der.sequence(der.oid(oids.DIGESTS[scheme.hash_name]), der.NULL)
    salt = hashlib.new(scheme.hash_name).digest_size
    return der.sequence(
        der.tlv(0xA0, digest),
        der.tlv(0xA1, der.sequence(der.oid(oids.ID_MGF1), digest)),
        der.tlv(0xA2, der.integer(salt)),
    )


def _signature_value(scheme: Scheme, signature: bytes) -> bytes:
    """ECDSA signatures travel as a SEQUENCE of r and s (RFC 5753, section 2.1.1)."""
    if not scheme.value.startswith("ecdsa"):
        return signature
    half = len(signature) // 2
    r, s = signature[:half], signature[half:]
    return der.sequence(
        der.integer(int.from_bytes(r, "big")), der.integer(int.from_bytes(s, "big"))
    )
