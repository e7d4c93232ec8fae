"""Public keys in ssh's words: key blobs (RFC 4253, section 6.6; RFC 5656; RFC 8709) and names."""

import base64
from dataclasses import dataclass, replace
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.errors import ProtocolError
from hsmagent.model import Key, KeyType
from hsmagent.ssh import wire
from hsmagent.ssh.wire import Reader

SSH_RSA = "ssh-rsa"
SSH_ED25519 = "ssh-ed25519"
ECDSA = "ecdsa-sha2-"
CERTIFICATE = "-cert-v01@openssh.com"
OPENSSH = "@openssh.com"

# FIDO keys (PROTOCOL.u2f): their types, each with the type of the key that the authenticator holds.
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
SK = {SK_ED25519: SSH_ED25519, SK_ECDSA: "ecdsa-sha2-nistp256"}

# ssh's name of a curve, and cryptography's. Curves that are not here (brainpool, secp256k1) have
# no name in ssh.
CURVES: dict[str, type[ec.EllipticCurve]] = {
    "nistp256": ec.SECP256R1,
    "nistp384": ec.SECP384R1,
    "nistp521": ec.SECP521R1,
}
SSH_CURVES: dict[str, str] = {curve().name: name for name, curve in CURVES.items()}

PlainPublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SkPublicKey:
    """A FIDO key: the key that the authenticator holds, and the application that it signs for."""

    public: PlainPublicKey
    application: str


PublicKey = PlainPublicKey | SkPublicKey

# Key types, and how many strings follow the type in a blob.
FIELDS = {
    SSH_RSA: 2,
    SSH_ED25519: 1,
    **dict.fromkeys((ECDSA + curve for curve in CURVES), 2),
    SK_ED25519: 2,
    SK_ECDSA: 3,
}

# OpenSSH's SSH_RSA_MINIMUM_MODULUS_SIZE.
RSA_MINIMUM = 1024
# In bits. No one uses a longer public exponent, and OpenSSL takes none with a long modulus: with an
# exponent as long as the modulus, verifying is as slow as signing, and a peer chooses the key.
RSA_EXPONENT_MAXIMUM = 64


@lru_cache(maxsize=1024)
def blob_of(spki: bytes) -> bytes | None:
    """Return the key blob for a DER SubjectPublicKeyInfo, or None if ssh has no name for it."""
    try:
        key = load_der_public_key(spki)
        return encode(key) if isinstance(key, PlainPublicKey) else None
    except (ValueError, UnsupportedAlgorithm, ProtocolError):
        return None


def blob_for(key: Key) -> bytes | None:
    """Return a key's plain blob, or None if ssh has no name for its kind."""
    if key.key_type is KeyType.OTHER:
        return key.spki
    blob = blob_of(key.spki)
    if key.key_type not in (KeyType.EC_SK, KeyType.ED25519_SK) or blob is None:
        return blob
    return _sk_blob(blob, key.application)


def _sk_blob(plain: bytes, application: str) -> bytes:
    """Make a FIDO key's blob from the blob of the key that the authenticator holds."""
    reader = Reader(plain)
    name = reader.text()
    [sk_name] = [sk for sk, held in SK.items() if held == name]
    return wire.text(sk_name) + reader.rest() + wire.text(application)


def encode(key: PublicKey) -> bytes:
    """Write a key blob. Raises ProtocolError if ssh has no name for its curve."""
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return wire.text(SSH_RSA) + wire.mpint(numbers.e) + wire.mpint(numbers.n)
        case ed25519.Ed25519PublicKey():
            return wire.text(SSH_ED25519) + wire.string(key.public_bytes_raw())
        case SkPublicKey():
            return _sk_blob(encode(key.public), key.application)
    curve = SSH_CURVES.get(key.curve.name)
    if curve is None:
        raise ProtocolError("ssh has no name for the curve of a key")
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return wire.text(ECDSA + curve) + wire.text(curve) + wire.string(point)


def decode(blob: bytes | memoryview) -> PublicKey:
    """Read a whole plain key blob. Raises ProtocolError, for a point off its curve, too."""
    reader = Reader(blob)
    key = read(reader, reader.text())
    reader.end()
    return key


def read(reader: Reader, name: str) -> PublicKey:
    """Read the fields of a plain key of type `name`, as they follow the name in blobs."""
    if name not in SK:
        return _read_plain(reader, name)
    return SkPublicKey(_read_plain(reader, SK[name]), reader.text())


def _read_plain(reader: Reader, name: str) -> PlainPublicKey:
    try:
        if name == SSH_RSA:
            e, n = reader.mpint(), reader.mpint()
            if n.bit_length() < RSA_MINIMUM:
                raise ProtocolError(f"an RSA key of {n.bit_length()} bits is too short")
            if e.bit_length() > RSA_EXPONENT_MAXIMUM:
                raise ProtocolError(f"an RSA exponent of {e.bit_length()} bits is too long")
            return rsa.RSAPublicNumbers(e, n).public_key()
        if name == SSH_ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(reader.string())
        curve = CURVES.get(name.removeprefix(ECDSA))
        if curve is None or not name.startswith(ECDSA):
            raise ProtocolError("a key's type is not supported")
        if reader.text() != name.removeprefix(ECDSA):
            raise ProtocolError("a key's curve is not the one in its name")
        point = reader.string()
        if point[:1] != b"\x04":
            raise ProtocolError("an EC point is not in its uncompressed form")
        return ec.EllipticCurvePublicKey.from_encoded_point(curve(), point)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProtocolError("a public key is not valid") from error


def describe(key: PublicKey, *, label: str = "") -> Key:
    """Return a public key that no token holds as `model.Key`."""
    if isinstance(key, SkPublicKey):
        held = describe(key.public, label=label)
        kind = KeyType.EC_SK if held.key_type is KeyType.EC else KeyType.ED25519_SK
        return replace(held, key_type=kind, application=key.application)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    match key:
        case rsa.RSAPublicKey():
            return Key(spki, KeyType.RSA, key.key_size, label=label)
        case ed25519.Ed25519PublicKey():
            return Key(spki, KeyType.ED25519, 256, label=label)
    return Key(spki, KeyType.EC, key.key_size, key.curve.name, label)


def plain_type(name: str) -> str:
    """Return the type of the keys that certificates of type `name` are for; others unchanged."""
    if not name.endswith(CERTIFICATE):
        return name
    plain = name.removesuffix(CERTIFICATE)
    return plain + OPENSSH if plain + OPENSSH in SK else plain


def certificate_type(name: str) -> str:
    """Return the type of the certificates for keys of type `name`."""
    return name.removesuffix(OPENSSH) + CERTIFICATE


def type_name(blob: bytes | bytearray) -> str:
    """Return the type in front of a key blob. Raises ProtocolError."""
    return Reader(blob).text()


def authorized_key(blob: bytes, comment: str = "") -> str:
    """Return a line for authorized_keys, without a line end."""
    line = f"{type_name(blob)} {base64.b64encode(blob).decode()}"
    return f"{line} {comment}" if comment else line
