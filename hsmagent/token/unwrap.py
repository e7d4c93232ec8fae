"""The daemon's half of decrypting a mail: from a RecipientInfo's fields to the content key.

Whoever asks learns nothing about why a key did not come out: for every ciphertext there is a
key of the length asked for, and when the ciphertext is wrong it is one derived from a secret of
this process and the ciphertext (implicit rejection), so that asking again gives the same one.
Nothing here branches on unpadded bytes, as far as Python allows. TokenError still says that the
token is gone or needs a login: that does not depend on the ciphertext.
"""

import hmac
import os
from hashlib import new

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import ProtocolError, TokenError
from hsmagent.token.signer import TokenSigner
from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap, Unwrap

# Cryptoki's words for "this ciphertext cannot be right" (PKCS#11 v2.40, section 5.1).
_CKR_OF_CIPHERTEXT = {0x20, 0x21, 0x40, 0x41, 0x13}
_PKCS1_MIN = 11  # 00 02, eight random bytes, 00
_LENGTHS = (16, 24, 32)
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1,  # old mail
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_SECRET = os.urandom(32)


async def unwrap(
    signer: TokenSigner, what: Unwrap, length: int, pin: bytearray | None = None
) -> bytes:
    """Return a content-encryption key of `length` bytes (16, 24 or 32).

    A wrong ciphertext gives a random-looking key; `pin` is for `always_authenticate` keys. Raises
    ProtocolError for a request that no mail makes (unknown padding, hash or length) and
    TokenError as the signer does.
    """
    _check(what, length)
    if isinstance(what, RsaUnwrap):
        good, key = await _rsa(signer, what, length, pin)
    else:
        good, key = await _ecdh(signer, what, length, pin)
    # Both keys exist in either case; a mask picks one of them.
    mask = -int(good) & ((1 << 8 * length) - 1)
    mine = int.from_bytes(_substitute(signer, what, length), "big")
    theirs = int.from_bytes(key, "big")
    return (theirs & mask | mine & ~mask).to_bytes(length, "big")


def _check(what: Unwrap, length: int) -> None:
    if isinstance(what, RsaUnwrap):
        known = what.padding in {"pkcs1", "oaep"} and {what.oaep_hash, what.mgf_hash} <= set(
            _HASHES
        )
    else:
        known = what.kdf_hash in _HASHES and what.wrap_bits in {128, 192, 256}
    if not known or length not in _LENGTHS:
        raise ProtocolError("an unwrap request with an unknown algorithm or key length")


def _substitute(signer: TokenSigner, what: Unwrap, length: int) -> bytes:
    """Return the key for a wrong ciphertext: the same one each time it is asked for.

    It depends on nothing else that the right key does not depend on. Otherwise, asking once more
    with that changed would tell one from the other.
    """
    used: tuple[object, ...]
    if isinstance(what, EcdhUnwrap):
        used = what.encrypted_key, what.point, what.kdf_hash, what.wrap_bits, what.shared_info
    elif what.padding == "oaep":
        used = what.encrypted_key, what.oaep_hash, what.mgf_hash, what.label
    else:
        used = (what.encrypted_key,)
    message = repr((signer.key.spki, length, used)).encode()
    return hmac.digest(_SECRET, message, "sha256")[:length]


# -- RSA -------------------------------------------------------------------------------------


async def _rsa(
    signer: TokenSigner, what: RsaUnwrap, length: int, pin: bytearray | None
) -> tuple[bool, bytes]:
    size = (signer.key.bits + 7) // 8
    # A ciphertext of another length, or not below the modulus, is public knowledge; it is
    # replaced so that the token does its work all the same.
    ciphertext = int.from_bytes(what.encrypted_key, "big")
    fits = len(what.encrypted_key) == size and ciphertext < _modulus(signer)
    sent = ciphertext if fits else 2
    try:
        block = await signer.decrypt_raw(sent.to_bytes(size, "big"), pin)
    except TokenError as error:
        if error.rv not in _CKR_OF_CIPHERTEXT:
            raise
        fits, block = False, bytes(size)
    block = block.rjust(size, b"\0")[-size:]
    unpad = _unpad_oaep if what.padding == "oaep" else _unpad_pkcs1
    good, key = unpad(block, what, length)
    return good & fits, key


def _modulus(signer: TokenSigner) -> int:
    public = load_der_public_key(signer.key.spki)
    return public.public_numbers().n if isinstance(public, rsa.RSAPublicKey) else 0


def _unpad_pkcs1(block: bytes, _: RsaUnwrap, length: int) -> tuple[bool, bytes]:
    """EME-PKCS1-v1_5 (RFC 8017, section 7.2.2) for a message whose length is known.

    The zero that ends the padding must stand at its one place, so nothing is searched for.
    """
    if len(block) < _PKCS1_MIN + length:
        return False, bytes(length)
    padding = block[2 : -length - 1]
    zeros = padding.count(0)
    wrong = block[0] | block[1] ^ 2 | block[-length - 1] | zeros
    return not wrong, block[-length:]


def _unpad_oaep(block: bytes, what: RsaUnwrap, length: int) -> tuple[bool, bytes]:
    """EME-OAEP (RFC 8017, section 7.1.2) for a message whose length is known."""
    size = new(what.oaep_hash).digest_size
    if len(block) < 2 * size + 2 + length:
        return False, bytes(length)
    seed, masked = block[1 : 1 + size], block[1 + size :]
    seed = _xor(seed, _mgf1(masked, size, what.mgf_hash))
    data = _xor(masked, _mgf1(seed, len(masked), what.mgf_hash))
    expected = (
        new(what.oaep_hash, what.label).digest() + bytes(len(data) - size - length - 1) + b"\1"
    )
    wrong = block[0] | (not hmac.compare_digest(data[:-length], expected))
    return not wrong, data[-length:]


def _mgf1(seed: bytes, length: int, name: str) -> bytes:
    """MGF1 (RFC 8017, appendix B.2.1)."""
    count = -(-length // new(name).digest_size)
    return b"".join(new(name, seed + i.to_bytes(4, "big")).digest() for i in range(count))[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


# -- ECDH ------------------------------------------------------------------------------------


async def _ecdh(
    signer: TokenSigner, what: EcdhUnwrap, length: int, pin: bytearray | None
) -> tuple[bool, bytes]:
    if not _on_curve(signer, what.point):
        return False, bytes(length)  # never let an invalid point meet a private key
    try:
        shared = await signer.derive(what.point, cofactor=what.cofactor, pin=pin)
    except TokenError as error:
        if error.rv not in _CKR_OF_CIPHERTEXT:
            raise
        return False, bytes(length)
    size = what.wrap_bits // 8
    kek = X963KDF(_HASHES[what.kdf_hash](), size, what.shared_info).derive(shared)
    try:
        key = keywrap.aes_key_unwrap(kek, what.encrypted_key)
    except (keywrap.InvalidUnwrap, ValueError):
        return False, bytes(length)
    return (True, key) if len(key) == length else (False, bytes(length))


def _on_curve(signer: TokenSigner, point: bytes) -> bool:
    try:
        public = load_der_public_key(signer.key.spki)
        if not isinstance(public, ec.EllipticCurvePublicKey) or point[:1] != b"\4":
            return False
        ec.EllipticCurvePublicKey.from_encoded_point(public.curve, point)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
