"""The check that every signature passes before it leaves: the key we offered made it.

Two private keys under one CKA_ID, a token that was swapped, a fault in a card: all would hand out
a signature that nobody can use, or one that tells about the private key.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import TokenError
from hsmagent.model import Key, KeyType, Scheme

_PREHASHED = {
    "sha1": utils.Prehashed(hashes.SHA1()),  # noqa: S303 - ssh-rsa, see schemes
    "sha256": utils.Prehashed(hashes.SHA256()),
    "sha384": utils.Prehashed(hashes.SHA384()),
    "sha512": utils.Prehashed(hashes.SHA512()),
}
_ECDSA = {name: ec.ECDSA(prehashed) for name, prehashed in _PREHASHED.items()}
_PSS: dict[str, padding.PSS] = {
    "sha256": padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
    "sha384": padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size),
    "sha512": padding.PSS(padding.MGF1(hashes.SHA512()), hashes.SHA512.digest_size),
}
_PKCS1 = padding.PKCS1v15()


class Checker:
    """Checks signatures of one key, whose public half is read once."""

    def __init__(self, key: Key) -> None:
        self._public = load_der_public_key(key.spki)
        self._size = (key.bits + 7) // 8 if key.key_type is not KeyType.ED25519 else 32

    def holds(self, scheme: Scheme, digest: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `digest` (Ed25519: the message).

        Raises TokenError where the machine's policy forbids the hash (SHA-1), and none can be told.
        """
        public = self._public
        try:
            if isinstance(public, rsa.RSAPublicKey):
                scheme_padding = _PSS[scheme.hash_name] if "pss" in scheme.value else _PKCS1
                public.verify(signature, digest, scheme_padding, _PREHASHED[scheme.hash_name])
            elif isinstance(public, ec.EllipticCurvePublicKey):
                if len(signature) != 2 * self._size:
                    return False
                r, s = signature[: self._size], signature[self._size :]
                der = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
                public.verify(der, digest, _ECDSA[scheme.hash_name])
            elif isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(signature, digest)
            else:
                return False
        except UnsupportedAlgorithm:
            raise TokenError(f"this machine's OpenSSL does not allow {scheme}") from None
        except (InvalidSignature, ValueError):
            return False
        return True

    def encrypts(self, block: bytes, ciphertext: bytes) -> bool:
        """Return whether this RSA key makes `ciphertext` of `block`, without any padding."""
        public = self._public
        if not isinstance(public, rsa.RSAPublicKey):
            return False
        numbers = public.public_numbers()
        again = pow(int.from_bytes(block, "big"), numbers.e, numbers.n)
        return again == int.from_bytes(ciphertext, "big")
