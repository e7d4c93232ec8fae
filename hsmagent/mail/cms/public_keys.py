"""Public keys as certificates hold them: which kinds are used here, and what the others are called.

RFC 3279, RFC 4055, RFC 5480, RFC 8410; RFC 9881 and RFC 9909 for the newest.
"""

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import UsageError
from hsmagent.mail.cms import der, oids
from hsmagent.mail.cms.parse import public_key

SAFE_RSA = 2048
MIN_RSA = 1024

Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class UnknownKind(UsageError):
    """A key of a kind that is not used here, or that cannot be read."""


def load(spki: bytes) -> Public:
    """Return the key of a SubjectPublicKeyInfo. Raises UnknownKind."""
    try:
        key: Any = load_der_public_key(_plain(spki))
    except (ValueError, UnsupportedAlgorithm):
        raise UnknownKind(_sentence(spki)) from None
    if not isinstance(key, Public):
        raise UnknownKind(_sentence(spki))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA:
        raise UnknownKind(f"an RSA key of {key.key_size} bits proves nothing and hides nothing")
    return key


def weakness(key: Public) -> str:
    """Return what to say of a key that is used but no longer safe, or ""."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SAFE_RSA:
        return f"the key has only {key.key_size} bits; {SAFE_RSA} are the least that is safe today"
    return ""


def _plain(spki: bytes) -> bytes:
    """Return the key of a certificate for OAEP alone as the RSA key that it is."""
    kind, bits = public_key(spki)
    if kind != oids.ID_RSAES_OAEP:
        return spki
    return der.sequence(der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL), bits)


def _sentence(spki: bytes) -> str:
    kind, _ = public_key(spki)
    if kind in {oids.RSA_ENCRYPTION, oids.ID_EC_PUBLIC_KEY, oids.ID_ED25519}:
        return "the public key in the certificate cannot be read, or its curve is not supported"
    return f"keys of this kind ({oids.KEY_KINDS.get(kind, kind)}) are not supported"


def encrypting_usage(key: Public) -> str:
    """Return the KeyUsage bit that a certificate for encryption has; "" for a key that signs."""
    if isinstance(key, rsa.RSAPublicKey):
        return "key_encipherment"
    return "key_agreement" if isinstance(key, ec.EllipticCurvePublicKey) else ""
