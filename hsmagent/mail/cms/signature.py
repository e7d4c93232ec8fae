"""One public-key signature as a SignerInfo describes it: RFC 3370, 4055, 5753, 8419."""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hsmagent.errors import UsageError
from hsmagent.mail.cms import oids, public_keys

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
# A mask generation needs no hash that resists collisions.
_MASKS: dict[str, type[hashes.HashAlgorithm]] = {**_HASHES, "sha1": hashes.SHA1}
_RSA = {"rsassa_pkcs1v15", "rsaes_pkcs1v15"}


class Unsupported(UsageError):
    """A signature that cannot be checked here; it may be good or bad."""


def verify(
    *,
    spki: bytes,
    algorithm: Any,
    signature: bytes,
    attributes: bytes | None,
    digest: bytes | None,
    digest_name: str,
) -> None:
    """Check `signature`, over `attributes` or, without any, over a content with this `digest`.

    Raises InvalidSignature; Unsupported or public_keys.UnknownKind when the algorithm is not one
    of ours or does not go with the key or with the digest.
    """
    key = public_keys.load(spki)
    kind = _kind(algorithm)
    if isinstance(key, ed25519.Ed25519PublicKey):
        if kind != "ed25519" or digest_name != "sha512":
            raise Unsupported("its algorithm does not go with the signer's key")
        if attributes is None:
            raise Unsupported("Ed25519 without signed attributes is not supported")
        key.verify(signature, attributes)
        return
    name = digest_name if algorithm["algorithm"].dotted == oids.RSA_ENCRYPTION else _hash(algorithm)
    if name != digest_name:
        raise Unsupported("its algorithm is for another digest than that of the content")
    hash_algorithm = _HASHES[name]()
    data = attributes
    over: utils.Prehashed | hashes.HashAlgorithm = hash_algorithm
    if data is None:
        if digest is None:
            raise InvalidSignature
        data, over = digest, utils.Prehashed(hash_algorithm)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, _padding(algorithm, kind), over)
    elif kind == "ecdsa":
        key.verify(signature, data, ec.ECDSA(over))
    else:
        raise Unsupported("its algorithm does not go with the signer's key")


def _kind(algorithm: Any) -> str:
    try:
        return str(algorithm.signature_algo)
    except ValueError:
        raise Unsupported(
            f"its algorithm ({algorithm['algorithm'].dotted}) is not supported"
        ) from None


def _hash(algorithm: Any) -> str:
    try:
        return str(algorithm.hash_algo)
    except ValueError:
        return ""


def _padding(algorithm: Any, kind: str) -> padding.AsymmetricPadding:
    if kind in _RSA:
        return padding.PKCS1v15()
    if kind != "rsassa_pss":
        raise Unsupported("its algorithm does not go with the signer's key")
    parameters = algorithm["parameters"]
    mask = parameters["mask_gen_algorithm"]
    inner = str(mask["parameters"]["algorithm"].native)
    if mask["algorithm"].native != "mgf1" or inner not in _MASKS:
        raise Unsupported("its RSA-PSS mask generation is not supported")
    salt = int(parameters["salt_length"].native)
    if salt.bit_length() > _SALT_BITS:
        raise InvalidSignature
    return padding.PSS(padding.MGF1(_MASKS[inner]()), salt)


_SALT_BITS = 16  # a salt whose length takes more bits than this is longer than any RSA key
