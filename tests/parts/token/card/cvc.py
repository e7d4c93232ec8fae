"""Card-verifiable certificates (BSI TR-03110, part 3): device certificate and key requests.

OpenSC verifies none of the signatures; they are made nevertheless, as plain r and s.
"""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hsmagent.schsm.apdu import SW
from hsmagent.schsm.cvc import (
    AUTHENTICATION,
    AUTHORITY,
    BODY,
    CERTIFICATE,
    HOLDER,
    ID_TA_ECDSA_SHA_256,
    ID_TA_RSA_V1_5_SHA_256,
    PROFILE,
    PUBLIC_KEY,
    SIGNATURE,
    curve_of,
)
from hsmagent.schsm.tlv import fields, tlv
from tests.parts.token.card import curves
from tests.parts.token.card.answer import Answer
from tests.parts.token.card.keys import PrivateKey


def certificate(key: PrivateKey, holder: str, signer: PrivateKey, authority: str) -> bytes:
    """Return a certificate of `key` for `holder`, signed by `signer` in `authority`'s name."""
    body = tlv(
        BODY,
        tlv(PROFILE, b"\0"),
        tlv(AUTHORITY, authority.encode()),
        tlv(PUBLIC_KEY, public_key(key)),
        tlv(HOLDER, holder.encode()),
    )
    return tlv(CERTIFICATE, body, tlv(SIGNATURE, signature(signer, body)))


def request(key: PrivateKey, holder: str, device: PrivateKey, authority: str) -> bytes:
    """Return the card's request for a new key: self-signed, then signed by the device."""
    inner = certificate(key, holder, key, holder)
    name = tlv(AUTHORITY, authority.encode())
    outer = signature(device, inner + name)
    return tlv(AUTHENTICATION, inner, name, tlv(SIGNATURE, outer))


def public_key(key: PrivateKey) -> bytes:
    """Return what stands inside 7F49: the algorithm, and the key with all its parameters."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        modulus = numbers.n.to_bytes(key.key_size // 8, "big")
        return (
            tlv(0x06, ID_TA_RSA_V1_5_SHA_256)
            + tlv(0x81, modulus)
            + tlv(0x82, numbers.e.to_bytes(3, "big"))
        )
    curve = curves.of(key.curve)
    point = key.public_key().public_numbers()
    encoded = b"\x04" + point.x.to_bytes(curve.size, "big") + point.y.to_bytes(curve.size, "big")
    parameters = b"".join(tlv(tag, value) for tag, value in curve.parameters())
    return tlv(0x06, ID_TA_ECDSA_SHA_256) + parameters + tlv(0x86, encoded) + tlv(0x87, b"\x01")


def signature(key: PrivateKey, data: bytes) -> bytes:
    """Sign with SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    size = curves.of(key.curve).size
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def generate(order: bytes) -> tuple[PrivateKey, str]:
    """Make the key that the body of GENERATE KEY PAIR orders; returns it and its holder."""
    wanted = fields(order)
    if PUBLIC_KEY not in wanted or HOLDER not in wanted:
        raise Answer(SW.WRONG_DATA)
    key = fields(wanted[PUBLIC_KEY])
    holder = wanted[HOLDER].decode("ascii", "replace")
    if key.get(0x06) == ID_TA_RSA_V1_5_SHA_256:
        bits = int.from_bytes(key.get(0x02, b""), "big")
        if bits not in {1024, 2048, 3072, 4096}:
            raise Answer(SW.WRONG_DATA)
        return rsa.generate_private_key(0x10001, bits), holder
    try:
        curve = curves.of(curve_of(key.get(0x81, b"")))
    except (ValueError, StopIteration) as error:
        raise Answer(SW.WRONG_DATA) from error
    return ec.generate_private_key(curve.named), holder
