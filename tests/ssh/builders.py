"""Writes what clients send and the agent only reads: constraints, bindings, private keys."""

import time
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmagent.ssh import keys, messages, signature, wire
from hsmagent.ssh.messages import SESSION_BIND, Number
from hsmagent.ssh.software import PrivateKey

KEY_TYPES = (keys.SSH_RSA, keys.SSH_ED25519, *(keys.ECDSA + curve for curve in keys.CURVES))


def blob_of(private: PrivateKey) -> bytes:
    return keys.encode(private.public_key())


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def sign(private: ed25519.Ed25519PrivateKey, data: bytes) -> bytes:
    return signature.encode("ssh-ed25519", private.sign(data))


def binding(
    host: ed25519.Ed25519PrivateKey,
    session_id: bytes,
    *,
    forwarding: bool = False,
    host_key: bytes | None = None,
    signed: bytes | None = None,
) -> bytes:
    """Return the contents of a session-bind extension."""
    return (
        wire.string(host_key or blob_of(host))
        + wire.string(session_id)
        + wire.string(signed or sign(host, session_id))
        + bytes((forwarding,))
    )


def bind_request(contents: bytes) -> bytes:
    return messages.encode(messages.Extension(SESSION_BIND, contents))


def hop(host: str = "", host_keys: Sequence[tuple[bytes, bool]] = (), user: str = "") -> bytes:
    rest = b"".join(wire.string(blob) + bytes((ca,)) for blob, ca in host_keys)
    return wire.text(user) + wire.text(host) + wire.string(b"") + rest


def way(origin: bytes, target: bytes) -> bytes:
    return wire.string(b"".join(map(wire.string, (origin, target, b""))))


def constraint(name: str, contents: bytes) -> bytes:
    return b"\xff" + wire.text(name) + contents


def restrict(*ways: bytes) -> bytes:
    return constraint("restrict-destination-v00@openssh.com", wire.string(b"".join(ways)))


def userauth(
    session_id: bytes,
    key_blob: bytes,
    *,
    user: str = "alice",
    host_key: bytes | None = None,
    algorithm: str = "ssh-ed25519",
) -> bytes:
    method = "publickey" if host_key is None else "publickey-hostbound-v00@openssh.com"
    return (
        wire.string(session_id)
        + b"\x32"
        + b"".join(map(wire.text, (user, "ssh-connection", method)))
        + b"\x01"
        + wire.text(algorithm)
        + wire.string(key_blob)
        + (b"" if host_key is None else wire.string(host_key))
    )


def certificate(
    authority: ed25519.Ed25519PrivateKey,
    key: ed25519.Ed25519PrivateKey,
    *,
    host: bool = True,
    principals: Sequence[str] = ("host.example",),
    valid: tuple[int, int] | None = None,
    critical: bytes = b"",
) -> bytes:
    """Return an Ed25519 certificate's blob; valid from an hour ago until in an hour."""
    now = int(time.time())
    after, before = valid or (now - 3600, now + 3600)
    body = (
        wire.text("ssh-ed25519-cert-v01@openssh.com")
        + wire.string(b"nonce")
        + wire.string(key.public_key().public_bytes_raw())
        + bytes(8)
        + wire.u32(2 if host else 1)
        + wire.text("id")
        + wire.string(b"".join(map(wire.text, principals)))
        + after.to_bytes(8, "big")
        + before.to_bytes(8, "big")
        + b"".join(map(wire.string, (critical, b"", b"", blob_of(authority))))
    )
    return body + wire.string(sign(authority, body))


def private_fields(private: PrivateKey) -> bytes:
    """Return a private key as message 17 carries it, without its comment."""
    match private:
        case rsa.RSAPrivateKey():
            numbers = private.private_numbers()
            public = numbers.public_numbers
            values = (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)
            return wire.text("ssh-rsa") + b"".join(map(wire.mpint, values))
        case ed25519.Ed25519PrivateKey():
            point = private.public_key().public_bytes_raw()
            seed = private.private_bytes_raw()
            return wire.text("ssh-ed25519") + wire.string(point) + wire.string(seed + point)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return blob_of(private) + wire.mpint(private.private_numbers().private_value)


def add_request(private: PrivateKey, comment: str = "me", constraints: bytes = b"") -> bytes:
    number = Number.SSH_AGENTC_ADD_ID_CONSTRAINED if constraints else Number.SSH_AGENTC_ADD_IDENTITY
    return bytes((number,)) + private_fields(private) + wire.text(comment) + constraints


def sign_request(blob: bytes, data: bytes, flags: int = 0) -> bytes:
    return messages.encode(messages.SignRequest(blob, data, flags))
