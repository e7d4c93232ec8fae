"""A card as a person might carry it: keys of three kinds, certificates, data objects."""

import datetime as dt
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.parts.card.card import Card
from tests.parts.card.keys import PrivateKey

P256, RSA, BRAINPOOL = 1, 2, 3  # key numbers; as one byte, their CKA_ID


def furnished(serial: str = "DENK0100001", label: str = "work") -> Card:
    """Return a card with a P-256, an RSA-2048 and a brainpoolP256r1 key.

    The first two have certificates. Labels: "ssh", "mail", "old". The certificate "authority"
    belongs to nothing on it.
    """
    card = Card(serial, label)
    ssh = ec.generate_private_key(ec.SECP256R1())
    card.add_key(ssh, "ssh", P256, self_signed(ssh, "ssh"))
    card.add_key(rsa_key(), "mail", RSA, self_signed(rsa_key(), "mail"))
    card.add_key(ec.generate_private_key(ec.BrainpoolP256R1()), "old", BRAINPOOL)
    authority = ec.generate_private_key(ec.SECP384R1())
    card.add_certificate(self_signed(authority, "an authority", authority=True), "authority", 1)
    card.add_data(b"for everyone", "note", "test", 1)
    card.add_data(b"for the owner", "secret", "test", 2, private=True)
    return card


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return one RSA-2048 key per process: making one takes long."""
    return rsa.generate_private_key(0x10001, 2048)


def self_signed(key: PrivateKey, name: str, *, authority: bool = False) -> bytes:
    """Return a DER certificate of `key` for `name`, good for a day on either side of now."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER)
