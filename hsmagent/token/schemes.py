"""What a token is asked for a signature scheme: mechanism, parameter and the bytes to sign.

The daemon hashes. Tokens get CKM_RSA_PKCS with a DigestInfo (RFC 8017, section 9.2), PSS and ECDSA
with a digest, and for Ed25519 the message itself, so that every token is asked the same way.
"""

import hashlib
import struct
from dataclasses import dataclass

from hsmagent.errors import TokenError
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.token.spec import (
    CKG_MGF1_SHA256,
    CKG_MGF1_SHA384,
    CKG_MGF1_SHA512,
    CKM_ECDSA,
    CKM_EDDSA,
    CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256,
    CKM_SHA384,
    CKM_SHA512,
)

_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS = {
    "sha256": (CKM_SHA256, CKG_MGF1_SHA256, 32),
    "sha384": (CKM_SHA384, CKG_MGF1_SHA384, 48),
    "sha512": (CKM_SHA512, CKG_MGF1_SHA512, 64),
}
_KINDS = {"rsa": KeyType.RSA, "ecdsa": KeyType.EC, "ed25519": KeyType.ED25519}
# secp521r1 alone has a field that is not whole bytes.
_BITS_PER_BYTE = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """A C_SignInit and C_Sign to be; `digest` is what the check of the signature needs."""

    mechanism: int
    parameter: bytes
    data: bytes
    digest: bytes


def prepare(key: Key, scheme: Scheme, data: bytes) -> Prepared:
    """Hash `data` and choose the mechanism. Raises TokenError when key and scheme do not fit."""
    if _KINDS[scheme.value.partition("-")[0]] is not key.key_type:
        raise TokenError(f"A {key.key_type} key cannot sign with {scheme}.")
    if scheme is Scheme.ED25519:
        return Prepared(CKM_EDDSA, b"", data, data)
    name = scheme.hash_name
    # SHA-1 is what ssh-rsa is, and only asked for by a peer that knows no better.
    digest = hashlib.new(name, data, usedforsecurity=name != "sha1").digest()
    if key.key_type is KeyType.EC:
        size = (key.bits + _BITS_PER_BYTE - 1) // _BITS_PER_BYTE
        return Prepared(CKM_ECDSA, b"", digest[:size], digest)
    if "pss" in scheme.value:
        return Prepared(CKM_RSA_PKCS_PSS, struct.pack("@LLL", *_PSS[name]), digest, digest)
    return Prepared(CKM_RSA_PKCS, b"", _DIGEST_INFO[name] + digest, digest)
