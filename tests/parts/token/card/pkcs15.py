"""The PKCS#15 descriptions that OpenSC and sc-hsm-tool keep on the card.

The card stores them without reading them. They are written here so that a test can hand out a
card with keys on it without the tools.
"""

from cryptography.hazmat.primitives.asymmetric import rsa

from hsmagent.schsm.tlv import integer, tlv
from tests.parts.token.card.keys import PrivateKey

RSA_USAGE = bytes.fromhex("0470")  # decrypt, sign, sign with recovery
EC_USAGE = bytes.fromhex("073080")  # sign, sign with recovery, derive
KEY_ACCESS = bytes.fromhex("03B8")  # sensitive, always so, never extractable, local
PRIVATE_AND_MODIFIABLE = bytes.fromhex("06C0")
MODIFIABLE = bytes.fromhex("0640")
USER_PIN = tlv(0x04, b"\x01")


def private_key(key: PrivateKey, label: str, reference: int) -> bytes:
    """Return the description of private key number `reference`; its CKA_ID is that number."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    return tlv(
        0x30 if is_rsa else 0xA0,
        _common(label, PRIVATE_AND_MODIFIABLE, USER_PIN),
        tlv(
            0x30,
            tlv(0x04, bytes([reference])),
            tlv(0x03, RSA_USAGE if is_rsa else EC_USAGE),
            tlv(0x03, KEY_ACCESS),
            integer(reference),
        ),
        tlv(0xA1, tlv(0x30, tlv(0x30, tlv(0x04)), integer(key.key_size))),
    )


def certificate(label: str, key_id: bytes, where: int) -> bytes:
    """Return the description of a certificate that belongs to no key of the card."""
    path = tlv(0x30, tlv(0x30, tlv(0x04, where.to_bytes(2, "big"))))
    return tlv(0x30, _common(label, MODIFIABLE), tlv(0x30, tlv(0x04, key_id)), tlv(0xA1, path))


def data(label: str, application: str, where: int, *, private: bool) -> bytes:
    """Return the description of a data object."""
    common = (
        _common(label, PRIVATE_AND_MODIFIABLE, USER_PIN) if private else _common(label, MODIFIABLE)
    )
    path = tlv(0x30, tlv(0x04, where.to_bytes(2, "big")))
    return tlv(0x30, common, tlv(0x30, tlv(0x0C, application.encode())), tlv(0xA1, path))


def _common(label: str, flags: bytes, *more: bytes) -> bytes:
    return tlv(0x30, tlv(0x0C, label.encode()), tlv(0x03, flags), *more)
