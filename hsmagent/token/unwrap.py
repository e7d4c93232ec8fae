"""The daemon's half of decrypting: from a RecipientInfo's fields to the content key, and the like.

Whoever asks does not learn whether a ciphertext was right: for every ciphertext there is a key of
the length asked for. For a wrong one it is derived from the ciphertext and a secret of this process
(implicit rejection), so that asking again gives the same key. Where nobody knows the length
beforehand (`decrypt`), the length is derived in the same way. `unwrap` and `decrypt` give the same
substitute for a wrong ciphertext: if they differed, asking both would tell that it is wrong.
Nothing here branches on unpadded bytes, as far as Python allows. TokenError still says that the
token is gone or needs a login: that does not depend on the ciphertext.
"""

import hmac
import os
from hashlib import new

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import ProtocolError, TokenError
from hsmagent.token.check import HASHES
from hsmagent.token.public_keys import modulus
from hsmagent.token.signer import TokenSigner
from hsmagent.unwraps import EcdhUnwrap, Kdf, RsaUnwrap, Unwrap

# Cryptoki's words for "this ciphertext cannot be right" (PKCS#11 v2.40, section 5.1).
_CKR_OF_CIPHERTEXT = {0x20, 0x21, 0x40, 0x41, 0x13}
_PKCS1_MIN = 11  # 00 02, eight random bytes, 00
_LENGTHS = (16, 24, 32)
_SECRET = os.urandom(32)


async def unwrap(
    signer: TokenSigner, what: Unwrap, length: int, pin: bytearray | None = None
) -> bytes:
    """Return a content-encryption key of `length` bytes (16, 24 or 32).

    A wrong ciphertext gives a random-looking key; `pin` is for `always_authenticate` keys. Raises
    ProtocolError for a request that no mail makes (unknown padding, hash or length) and
    TokenError as the signer does.
    """
    _check(what)
    if length not in _LENGTHS:
        raise ProtocolError("an unwrap request with an unknown key length")
    if isinstance(what, RsaUnwrap):
        return await _rsa(signer, what, length, pin)
    good, key = await _ecdh(signer, what, length, pin)
    return _chosen(good, key, _substitute(signer, what, length))


async def decrypt(signer: TokenSigner, what: RsaUnwrap, pin: bytearray | None = None) -> bytes:
    """Return what was encrypted, of whatever length; for a wrong ciphertext random-looking bytes.

    Raises as `unwrap` does.
    """
    _check(what)
    return await _rsa(signer, what, None, pin)


async def derive(
    signer: TokenSigner,
    point: bytes,
    kdf: Kdf | None,
    *,
    cofactor: bool = False,
    pin: bytearray | None = None,
) -> bytes:
    """Return what ECDH with `point` gives, as long as `kdf` says; None: the shared x itself.

    Raises ProtocolError for a point that is not on the key's curve and a hash that is unknown:
    whoever asks can know both beforehand. TokenError as the signer does.
    """
    if kdf is not None and kdf.hash_name not in HASHES:
        raise ProtocolError("a key derivation with an unknown hash")
    if not _on_curve(signer, point):
        raise ProtocolError("the point is not on the curve of the key")
    shared = await signer.derive(point, cofactor=cofactor, pin=pin)
    return shared if kdf is None else _x963(kdf, shared)


def _check(what: Unwrap) -> None:
    if isinstance(what, RsaUnwrap):
        known = what.padding in _PADDINGS and {what.oaep_hash, what.mgf_hash} <= set(HASHES)
    else:
        known = what.kdf_hash in HASHES and what.wrap_bits in {128, 192, 256}
    if not known:
        raise ProtocolError("an unwrap request with an unknown algorithm")


def _chosen(good: int, key: bytes, substitute: bytes) -> bytes:
    """Return `key` if `good`, else `substitute`, of the same length: a mask picks, no branch."""
    mask = -int(good) & ((1 << 8 * len(substitute)) - 1)
    mine, theirs = (int.from_bytes(each, "big") for each in (substitute, key))
    return (theirs & mask | mine & ~mask).to_bytes(len(substitute), "big")


def _substitute(signer: TokenSigner, what: Unwrap, length: int) -> bytes:
    """Return the key for a wrong ciphertext: the same one each time it is asked for."""
    return _drawn(signer, what, length, length)


def _substitute_length(signer: TokenSigner, what: RsaUnwrap, most: int) -> int:
    """Return a length from 0 to `most` for a wrong ciphertext; always the same one."""
    return int.from_bytes(_drawn(signer, what, "length", 16), "big") % (most + 1)


def _drawn(signer: TokenSigner, what: Unwrap, for_what: object, size: int) -> bytes:
    """Return `size` bytes drawn from a pseudorandom function of key and ciphertext.

    They depend only on what the right key depends on, too. Otherwise, asking once more with the
    rest changed would tell the right key from a substitute.
    """
    used: tuple[object, ...]
    if isinstance(what, EcdhUnwrap):
        used = what.encrypted_key, what.point, what.kdf_hash, what.wrap_bits, what.shared_info
    elif what.padding == "oaep":
        used = what.encrypted_key, what.oaep_hash, what.mgf_hash, what.label
    else:
        used = (what.encrypted_key,)
    message = repr((signer.key.spki, for_what, used)).encode()
    blocks = range(-(-size // 32))
    return b"".join(
        hmac.digest(_SECRET, number.to_bytes(4, "big") + message, "sha256") for number in blocks
    )[:size]


# -- RSA -------------------------------------------------------------------------------------


async def _rsa(
    signer: TokenSigner, what: RsaUnwrap, length: int | None, pin: bytearray | None
) -> bytes:
    """Return the message, or its substitute. length None: as long as the padding says."""
    size = (signer.key.bits + 7) // 8
    fits, block = await _block(signer, what, size, pin)
    padding = _PADDINGS[what.padding]
    clear = padding.clear(block, what)
    if length is None:
        ends, found = padding.length(clear, what)
        drawn = _substitute_length(signer, what, padding.most(size, what))
        mask = -int(ends & fits)
        length = found & mask | drawn & ~mask
    good, key = padding.unpad(clear, what, length)
    return _chosen(good & fits, key, _substitute(signer, what, length))


async def _block(
    signer: TokenSigner, what: RsaUnwrap, size: int, pin: bytearray | None
) -> tuple[bool, bytes]:
    """Return the padded message, and whether the ciphertext could be one at all."""
    # Whoever sent the ciphertext knows that its length is wrong, or that it is not below the
    # modulus. It is replaced, so that the token takes as long as for a right one.
    ciphertext = int.from_bytes(what.encrypted_key, "big")
    fits = len(what.encrypted_key) == size and ciphertext < modulus(signer.key.spki)
    sent = ciphertext if fits else 2
    try:
        block = await signer.decrypt_raw(sent.to_bytes(size, "big"), pin)
    except TokenError as error:
        if error.rv not in _CKR_OF_CIPHERTEXT:
            raise
        fits, block = False, bytes(size)
    return fits, block.rjust(size, b"\0")[-size:]


class _Pkcs1:
    """EME-PKCS1-v1_5 (RFC 8017, section 7.2.2): 00 02, eight random bytes or more, 00, message."""

    @staticmethod
    def most(size: int, _: RsaUnwrap) -> int:
        return size - _PKCS1_MIN

    @staticmethod
    def clear(block: bytes, _: RsaUnwrap) -> bytes:
        return block

    @staticmethod
    def length(block: bytes, _: RsaUnwrap) -> tuple[bool, int]:
        """Return whether a message is there, and how long it is."""
        end = block.find(0, 2)
        wrong = block[0] | block[1] ^ 2 | (end < _PKCS1_MIN - 1)
        return not wrong, len(block) - 1 - end

    @staticmethod
    def unpad(block: bytes, _: RsaUnwrap, length: int) -> tuple[bool, bytes]:
        """Return whether the padding leaves a message of this length, and that message.

        The zero that ends the padding must stand at its one place, so nothing is searched for.
        """
        if len(block) < _PKCS1_MIN + length:
            return False, bytes(length)
        at = len(block) - length
        zeros = block[2 : at - 1].count(0)
        wrong = block[0] | block[1] ^ 2 | block[at - 1] | zeros
        return not wrong, block[at:]


class _Oaep:
    """EME-OAEP (RFC 8017, section 7.1.2). Unmasked, a block is Y and DB: 00, hash, zeros, 01, M."""

    @staticmethod
    def most(size: int, what: RsaUnwrap) -> int:
        return max(0, size - 2 * new(what.oaep_hash).digest_size - 2)

    @staticmethod
    def clear(block: bytes, what: RsaUnwrap) -> bytes:
        size = new(what.oaep_hash).digest_size
        seed, masked = block[1 : 1 + size], block[1 + size :]
        seed = _xor(seed, _mgf1(masked, size, what.mgf_hash))
        return block[:1] + _xor(masked, _mgf1(seed, len(masked), what.mgf_hash))

    @staticmethod
    def length(clear: bytes, what: RsaUnwrap) -> tuple[bool, int]:
        """Return whether a message is there, and how long it is."""
        rest = clear[1 + new(what.oaep_hash).digest_size :].lstrip(b"\0")
        good, _ = _Oaep.unpad(clear, what, max(0, len(rest) - 1))
        return good, max(0, len(rest) - 1)

    @staticmethod
    def unpad(clear: bytes, what: RsaUnwrap, length: int) -> tuple[bool, bytes]:
        """Return whether the padding leaves a message of this length, and that message."""
        size = new(what.oaep_hash).digest_size
        if len(clear) < size + 2 + length:
            return False, bytes(length)
        at = len(clear) - length
        zeros = bytes(at - size - 2)
        expected = b"\0" + new(what.oaep_hash, what.label).digest() + zeros + b"\1"
        return hmac.compare_digest(clear[:at], expected), clear[at:]


_PADDINGS: dict[str, type[_Pkcs1 | _Oaep]] = {"pkcs1": _Pkcs1, "oaep": _Oaep}


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
    kek = _x963(Kdf(what.kdf_hash, what.wrap_bits // 8, what.shared_info), shared)
    try:
        key = keywrap.aes_key_unwrap(kek, what.encrypted_key)
    except (keywrap.InvalidUnwrap, ValueError):
        return False, bytes(length)
    return (True, key) if len(key) == length else (False, bytes(length))


def _x963(kdf: Kdf, shared: bytes) -> bytes:
    return X963KDF(HASHES[kdf.hash_name], kdf.length, kdf.shared_info).derive(shared)


def _on_curve(signer: TokenSigner, point: bytes) -> bool:
    try:
        public = load_der_public_key(signer.key.spki)
        if not isinstance(public, ec.EllipticCurvePublicKey) or point[:1] != b"\4":
            return False
        ec.EllipticCurvePublicKey.from_encoded_point(public.curve, point)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
