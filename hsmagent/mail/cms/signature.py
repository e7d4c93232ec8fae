"""One public-key signature as a SignerInfo describes it: RFC 3370, 4055, 5753, 8419."""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_RSA = {"rsassa_pkcs1v15", "rsaes_pkcs1v15"}
_MIN_RSA = 1024


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

    Raises InvalidSignature, or UnsupportedAlgorithm or one of ASN1_ERRORS when the algorithm is
    not one of ours or does not go with the key or with the digest.
    """
    key = load_der_public_key(spki)
    kind = algorithm.signature_algo
    if isinstance(key, ed25519.Ed25519PublicKey):
        if kind != "ed25519" or digest_name != "sha512":
            raise ValueError("the algorithm does not go with the key")
        if attributes is None:
            raise ValueError("Ed25519 without signed attributes is not supported")
        key.verify(signature, attributes)
        return
    name = digest_name if algorithm["algorithm"].dotted == _PLAIN_RSA else algorithm.hash_algo
    if name != digest_name:
        raise ValueError("the digest of the signature is not that of the content")
    hash_algorithm = _HASHES[name]()
    data = attributes
    over: utils.Prehashed | hashes.HashAlgorithm = hash_algorithm
    if data is None:
        if digest is None:
            raise InvalidSignature
        data, over = digest, utils.Prehashed(hash_algorithm)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA:
        key.verify(signature, data, _padding(algorithm, kind, name), over)
    elif isinstance(key, ec.EllipticCurvePublicKey) and kind == "ecdsa":
        key.verify(signature, data, ec.ECDSA(over))
    else:
        raise ValueError("the algorithm does not go with the key")


_PLAIN_RSA = "1.2.840.113549.1.1.1"


def _padding(algorithm: Any, kind: str, name: str) -> padding.AsymmetricPadding:
    if kind in _RSA:
        return padding.PKCS1v15()
    if kind != "rsassa_pss":
        raise ValueError("the algorithm does not go with the key")
    parameters = algorithm["parameters"]
    mgf = parameters["mask_gen_algorithm"]
    inner = mgf["parameters"]["algorithm"].native
    if mgf["algorithm"].native != "mgf1" or inner != name:
        raise ValueError("a mask generation that is not MGF1 with the same digest")
    salt = int(parameters["salt_length"].native)
    return padding.PSS(padding.MGF1(_HASHES[name]()), salt)
