"""The check that every signature passes before it leaves: the key that we offered has made it.

With two private keys under one CKA_ID, a swapped token or a faulty card it may not be: then nobody
could use it, or it could give away the private key.
"""

from collections.abc import Callable
from functools import partial

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import TokenError
from hsmagent.model import Key, Scheme

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - ssh-rsa (see schemes), and old mail
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def _padding(scheme: Scheme) -> padding.PSS | padding.PKCS1v15:
    if "pss" not in scheme:
        return padding.PKCS1v15()
    used = HASHES[scheme.hash_name]
    return padding.PSS(padding.MGF1(used), used.digest_size)


_PREHASHED = {
    scheme: utils.Prehashed(HASHES[scheme.hash_name]) for scheme in Scheme if scheme.hash_name
}
_ECDSA = {scheme: ec.ECDSA(prehashed) for scheme, prehashed in _PREHASHED.items()}
_PADDINGS = {scheme: _padding(scheme) for scheme in _PREHASHED}


# Whether a signature holds; takes scheme, digest (for Ed25519 the message) and signature.
_Holds = Callable[[Scheme, bytes, bytes], bool]


def _how(public: PublicKeyTypes, size: int) -> _Holds:
    """Return what checks the signatures of this key: chosen once, not for each signature.

    size: bytes of a number of its curve.
    """
    match public:
        case rsa.RSAPublicKey():
            return partial(_rsa_holds, public)
        case ec.EllipticCurvePublicKey():
            return partial(_ecdsa_holds, public, size)
        case ed25519.Ed25519PublicKey():
            return partial(_ed25519_holds, public)
    return lambda *_: False


def _rsa_holds(public: rsa.RSAPublicKey, scheme: Scheme, digest: bytes, signature: bytes) -> bool:
    public.verify(signature, digest, _PADDINGS[scheme], _PREHASHED[scheme])
    return True


def _ecdsa_holds(
    public: ec.EllipticCurvePublicKey, size: int, scheme: Scheme, digest: bytes, signature: bytes
) -> bool:
    if len(signature) != 2 * size:
        return False
    r, s = signature[:size], signature[size:]
    der = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    public.verify(der, digest, _ECDSA[scheme])
    return True


def _ed25519_holds(
    public: ed25519.Ed25519PublicKey, _scheme: Scheme, message: bytes, signature: bytes
) -> bool:
    public.verify(signature, message)
    return True


class Checker:
    """Checks signatures of one key, whose public half is read once."""

    def __init__(self, key: Key) -> None:
        self._public = load_der_public_key(key.spki)
        self._holds = _how(self._public, (key.bits + 7) // 8)

    def holds(self, scheme: Scheme, digest: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `digest` (Ed25519: the message).

        Raises TokenError where the machine's policy forbids the hash (SHA-1), so that nobody can
        tell.
        """
        try:
            return self._holds(scheme, digest, signature)
        except UnsupportedAlgorithm:
            raise TokenError(f"this machine's OpenSSL does not allow {scheme}") from None
        except (InvalidSignature, ValueError):
            return False

    def encrypts(self, block: bytes, ciphertext: bytes) -> bool:
        """Return whether `ciphertext` is `block` encrypted with this RSA key, without padding."""
        public = self._public
        if not isinstance(public, rsa.RSAPublicKey):
            return False
        numbers = public.public_numbers()
        again = pow(int.from_bytes(block, "big"), numbers.e, numbers.n)
        return again == int.from_bytes(ciphertext, "big")
