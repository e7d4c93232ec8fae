"""What the card's processor does with private keys."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsmagent.schsm.apdu import SW
from hsmagent.schsm.tlv import walk
from tests.parts.token.card.answer import Answer

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# Algorithm identifiers (P2 of SIGN and DECIPHER) that OpenSC's driver sends.
RSA_RAW = 0x20
RSA_DECRYPT = 0x21
RSA_PSS = 0x40
ECDSA_RAW = 0x70
ECDSA_HASHES: dict[int, hashes.HashAlgorithm] = {
    0x71: hashes.SHA1(),
    0x72: hashes.SHA224(),
    0x73: hashes.SHA256(),
}
ECDH = 0x80

BY_LENGTH: dict[int, hashes.HashAlgorithm] = {
    20: hashes.SHA1(),
    28: hashes.SHA224(),
    32: hashes.SHA256(),
    48: hashes.SHA384(),
    64: hashes.SHA512(),
}


def sign(key: PrivateKey, algorithm: int, data: bytes) -> bytes:
    """Return a raw RSA block or a DER ECDSA signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm == RSA_RAW:
            return _raw_rsa(key, data)
        if algorithm == RSA_PSS:
            return _sign_pss(key, data)
    elif algorithm == ECDSA_RAW:
        return _sign_digest(key, data)
    elif algorithm in ECDSA_HASHES:
        return key.sign(data, ec.ECDSA(ECDSA_HASHES[algorithm]))
    raise Answer(SW.WRONG_P1P2)


def decipher(key: PrivateKey, algorithm: int, data: bytes) -> bytes:
    """Return the whole padded RSA block, or the shared point `04 x y` with y left zero."""
    if isinstance(key, rsa.RSAPrivateKey) and algorithm == RSA_DECRYPT:
        return _raw_rsa(key, data)
    if isinstance(key, ec.EllipticCurvePrivateKey) and algorithm == ECDH:
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, data)
        except ValueError as error:
            raise Answer(SW.WRONG_DATA) from error
        shared = key.exchange(ec.ECDH(), peer)
        return b"\x04" + shared + bytes(len(shared))
    raise Answer(SW.WRONG_P1P2)


def _raw_rsa(key: rsa.RSAPrivateKey, block: bytes) -> bytes:
    numbers = key.private_numbers()
    modulus, size = numbers.public_numbers.n, key.key_size // 8
    value = int.from_bytes(block, "big")
    if len(block) != size or value >= modulus:
        raise Answer(SW.WRONG_DATA)
    # By the Chinese remainder theorem, four times as fast as one power.
    m1 = pow(value, numbers.dmp1, numbers.p)
    m2 = pow(value, numbers.dmq1, numbers.q)
    result = m2 + numbers.iqmp * (m1 - m2) % numbers.p * numbers.q
    return result.to_bytes(size, "big")


def _sign_pss(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    digest = data
    if data[:1] == b"\x30" and len(data) not in BY_LENGTH:
        # OpenSC 0.23 sends a DigestInfo where the card expects the hash alone.
        digest = list(walk(next(walk(data))[1]))[1][1]
    if len(digest) not in BY_LENGTH:
        raise Answer(SW.WRONG_DATA)
    algorithm = BY_LENGTH[len(digest)]
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return key.sign(digest, pss, Prehashed(algorithm))


def _sign_digest(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """Sign what the host hashed, of any length: the hash is a number, leading zeros are free."""
    size = next((size for size in BY_LENGTH if size >= len(digest)), 0)
    if not digest or not size:
        raise Answer(SW.WRONG_DATA)
    return key.sign(digest.rjust(size, b"\0"), ec.ECDSA(Prehashed(BY_LENGTH[size])))
