"""A card as a person might carry it: keys of three kinds, certificates, data objects."""

import datetime as dt
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.parts.token.card.card import Card
from tests.parts.token.card.keys import PrivateKey

P256, RSA, BRAINPOOL = 1, 2, 3  # key numbers; as one byte, their CKA_ID
AUTHORITY = "an authority"


def furnished(serial: str = "DENK0100001", label: str = "work") -> Card:
    """Return a card with a P-256, an RSA-2048 and a brainpoolP256r1 key.

    Labels: "ssh", "mail", "old". The first two have certificates, whose issuer's lies there too:
    "authority".
    """
    card = Card(serial, label)
    ssh = ec.generate_private_key(ec.SECP256R1())
    authority = ec.generate_private_key(ec.SECP384R1())
    card.add_key(ssh, "ssh", P256, certificate(ssh, "ssh", authority))
    card.add_key(rsa_key(), "mail", RSA, certificate(rsa_key(), "mail", authority))
    card.add_key(ec.generate_private_key(ec.BrainpoolP256R1()), "old", BRAINPOOL)
    card.add_certificate(certificate(authority, AUTHORITY, authority), "authority", 1)
    card.add_data(b"for everyone", "note", "test", 1)
    card.add_data(b"for the owner", "secret", "test", 2, private=True)
    return card


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return one RSA-2048 key per process: making one takes long."""
    return rsa.generate_private_key(0x10001, 2048)


def certificate(key: PrivateKey, name: str, authority: PrivateKey) -> bytes:
    """Return a DER certificate of `key` for `name`, good for a day on either side of now."""
    subject, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
        for each in (name, AUTHORITY)
    )
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=key is authority, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )
    return made.public_bytes(Encoding.DER)
