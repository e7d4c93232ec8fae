"""What a token is asked for a signature scheme: mechanism, parameter and the bytes to sign.

The daemon hashes. A token gets a DigestInfo for CKM_RSA_PKCS (RFC 8017, section 9.2), a digest for
PSS and ECDSA, and the message itself for Ed25519: every token can do that.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cache, partial

from hsmagent.errors import TokenError
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.worker import spec

KEY_TYPES = {
    KeyType.RSA: spec.CKK_RSA,
    KeyType.EC: spec.CKK_EC,
    KeyType.ED25519: spec.CKK_EC_EDWARDS,
}

_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS = {
    "sha256": (spec.CKM_SHA256, spec.CKG_MGF1_SHA256, 32),
    "sha384": (spec.CKM_SHA384, spec.CKG_MGF1_SHA384, 48),
    "sha512": (spec.CKM_SHA512, spec.CKG_MGF1_SHA512, 64),
}
_KINDS = {"rsa": KeyType.RSA, "ecdsa": KeyType.EC, "ed25519": KeyType.ED25519}
# SHA-1 is what ssh-rsa is, and only asked for by a peer that knows no better.
_HASHES = {scheme: getattr(hashlib, scheme.hash_name) for scheme in Scheme if scheme.hash_name}
_HASHES[Scheme.RSA_PKCS1_SHA1] = partial(hashlib.sha1, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What C_SignInit and C_Sign get. digest: what the signature is then checked against."""

    mechanism: int
    parameter: bytes
    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How to prepare a signature: `prefix`, then the digest's first `size` bytes (0: all)."""

    mechanism: int
    parameter: bytes = b""
    prefix: bytes = b""
    size: int = 0


def prepare(key: Key, scheme: Scheme, data: bytes, *, hashed: bool = False) -> Prepared:
    """Hash `data` and choose the mechanism; hashed: it is the digest already.

    Raises TokenError when key and scheme do not fit, or a digest is not as long as its hash.
    """
    recipe = _recipe(key.key_type, key.bits, scheme)
    if scheme is Scheme.ED25519:
        return Prepared(recipe.mechanism, b"", data, data)
    digest = _digest_of(scheme, data) if hashed else _HASHES[scheme](data).digest()
    wanted = recipe.prefix + (digest[: recipe.size] if recipe.size else digest)
    return Prepared(recipe.mechanism, recipe.parameter, wanted, digest)


def _digest_of(scheme: Scheme, digest: bytes) -> bytes:
    size = hashlib.new(scheme.hash_name).digest_size
    if len(digest) != size:
        raise TokenError(f"a digest for {scheme} has {size} bytes, not {len(digest)}")
    return digest


@cache
def _recipe(key_type: KeyType, bits: int, scheme: Scheme) -> _Recipe:
    if _KINDS[scheme.value.partition("-")[0]] is not key_type:
        raise TokenError(f"a {key_type} key cannot sign with {scheme}")
    if scheme is Scheme.ED25519:
        return _Recipe(spec.CKM_EDDSA)
    if key_type is KeyType.EC:
        return _Recipe(spec.CKM_ECDSA, size=(bits + 7) // 8)
    name = scheme.hash_name
    if "pss" in scheme.value:
        return _Recipe(spec.CKM_RSA_PKCS_PSS, parameter=struct.pack("@LLL", *_PSS[name]))
    return _Recipe(spec.CKM_RSA_PKCS, prefix=_DIGEST_INFO[name])
