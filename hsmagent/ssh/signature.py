"""From a sign request to a scheme, and from a raw signature to ssh's signature blob and back."""

from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hsmagent.model import Key, KeyType, Scheme
from hsmagent.ssh import keys, wire
from hsmagent.ssh.keys import PlainPublicKey, PublicKey, SkPublicKey
from hsmagent.ssh.messages import SSH_AGENT_RSA_SHA2_256, SSH_AGENT_RSA_SHA2_512
from hsmagent.ssh.wire import Reader

RSA_SCHEMES = {
    "ssh-rsa": Scheme.RSA_PKCS1_SHA1,
    "rsa-sha2-256": Scheme.RSA_PKCS1_SHA256,
    "rsa-sha2-512": Scheme.RSA_PKCS1_SHA512,
}
# RFC 5656, section 6.2.1: the hash goes with the curve.
EC_SCHEMES = {
    "nistp256": Scheme.ECDSA_SHA256,
    "nistp384": Scheme.ECDSA_SHA384,
    "nistp521": Scheme.ECDSA_SHA512,
}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - what "ssh-rsa" means (RFC 4253); peers still ask for it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def choose(key: Key, flags: int) -> tuple[str, Scheme]:
    """Return the algorithm's name in ssh and the scheme, for a key and a request's flags.

    With both RSA flags set SHA-256 is taken, as OpenSSH does; with none, SHA-1 (RFC 9987,
    section 5.6.1). Other keys take no flags.
    """
    if key.key_type is KeyType.RSA:
        if flags & SSH_AGENT_RSA_SHA2_256:
            name = "rsa-sha2-256"
        elif flags & SSH_AGENT_RSA_SHA2_512:
            name = "rsa-sha2-512"
        else:
            name = "ssh-rsa"
        return name, RSA_SCHEMES[name]
    if key.key_type is KeyType.ED25519:
        return keys.SSH_ED25519, Scheme.ED25519
    curve = keys.SSH_CURVES[key.curve]
    return keys.ECDSA + curve, EC_SCHEMES[curve]


def encode(name: str, raw: bytes) -> bytes:
    """Write a signature blob from what a Signer returns (r‖s for ECDSA)."""
    if name.startswith(keys.ECDSA):
        half = len(raw) // 2
        r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        raw = wire.mpint(r) + wire.mpint(s)
    return _written(name) + wire.string(raw)


@lru_cache(maxsize=32)
def _written(name: str) -> bytes:
    """Write an algorithm's name; there are few."""
    return wire.text(name)


def decode(blob: bytes) -> tuple[str, bytes]:
    """Read a signature blob: the algorithm's name, and its own bytes. Raises ProtocolError."""
    reader = Reader(blob)
    name, raw = reader.text(), reader.string()
    reader.end()
    return name, raw


def verifies(key: PublicKey, blob: bytes, data: bytes) -> bool:
    """Whether a signature blob is the key's signature over `data`. Raises ProtocolError.

    A system may forbid SHA-1; there, no signature with it holds.
    """
    if isinstance(key, SkPublicKey):
        return _sk_verifies(key, blob, data)
    return _verifies(key, *decode(blob), data)


def _sk_verifies(key: SkPublicKey, blob: bytes, data: bytes) -> bool:
    """Check what an authenticator signed: hashes, flags and counter (PROTOCOL.u2f).

    Of the flags, 1 says that somebody touched it, and 4 that it verified who. Whether that is
    enough is for the server to decide.
    """
    reader = Reader(blob)
    name, raw, flags, counter = reader.text(), reader.string(), reader.raw(1), reader.raw(4)
    reader.end()
    if name not in keys.SK or name != keys.type_name(keys.encode(key)):
        return False
    application = key.application.encode("utf-8", "surrogateescape")
    signed = sha256(application).digest() + flags + counter + sha256(data).digest()
    return _verifies(key.public, keys.SK[name], raw, signed)


def _verifies(key: PlainPublicKey, name: str, raw: bytes, data: bytes) -> bool:
    try:
        match key:
            case rsa.RSAPublicKey():
                if name not in RSA_SCHEMES:
                    return False
                # Leading zeros may be missing (RFC 4253 says nothing of the width).
                raw = raw.rjust((key.key_size + 7) // 8, b"\0")
                key.verify(raw, data, padding.PKCS1v15(), HASHES[RSA_SCHEMES[name].hash_name])
            case ed25519.Ed25519PublicKey():
                if name != keys.SSH_ED25519:
                    return False
                key.verify(raw, data)
            case _:
                curve = keys.SSH_CURVES[key.curve.name]
                if name != keys.ECDSA + curve:
                    return False
                reader = Reader(raw)
                der = encode_dss_signature(reader.mpint(), reader.mpint())
                reader.end()
                key.verify(der, data, ec.ECDSA(HASHES[EC_SCHEMES[curve].hash_name]))
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
