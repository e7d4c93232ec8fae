"""A forwarded host has a token's key sign a "login" that gpg calls a good signature of a text.

An OpenPGP v4 signature is over the text, some fields of the signature's own, and a trailer (RFC
9580, section 5.2.4). So whatever ends as those do is a text that was signed.
"""

import hashlib
import secrets
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attacks.test_01_cross_protocol import TEXT, Scene, ecdsa_blob, login, scene, sshsig
from tests.parts.agent.hostile import blob_of, rsa_key

__all__ = ["scene"]

ECDSA, SHA256, OF_A_TEXT, OF_A_KEY = 19, 8, 0x00, 0x13
MADE = (1_700_000_000).to_bytes(4, "big")
P256 = bytes.fromhex("2a8648ce3d030107")


def fields(kind: int) -> bytes:
    """Return the fields of a signature that are signed: made at a time, and revocable.

    An odd number of them, so that a modulus can end with their number.
    """
    return bytes((4, kind, ECDSA, SHA256, 0, 9, 2, 7, 1, 5, 2)) + MADE


def ending(kind: int) -> bytes:
    """Return what the data of such a signature ends with."""
    return fields(kind) + b"\x04\xff" + len(fields(kind)).to_bytes(4, "big")


def mpi(number: int) -> bytes:
    return number.bit_length().to_bytes(2, "big") + number.to_bytes(
        (number.bit_length() + 7) // 8, "big"
    )


def packet(tag: int, body: bytes) -> bytes:
    return bytes((0xC0 | tag, 0xFF)) + len(body).to_bytes(4, "big") + body


def key_body(public: ec.EllipticCurvePublicKey) -> bytes:
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return b"\x04" + MADE + bytes((ECDSA, len(P256))) + P256 + mpi(int.from_bytes(point, "big"))


def key_id(public: ec.EllipticCurvePublicKey) -> bytes:
    body = key_body(public)
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).digest()[-8:]


def signature(kind: int, data: bytes, der: bytes, public: ec.EllipticCurvePublicKey) -> bytes:
    """Return a signature packet around a signature of `data`."""
    r, s = decode_dss_signature(der)
    issuer = bytes((0, 10, 9, 16)) + key_id(public)
    left = hashlib.sha256(data).digest()[:2]
    return packet(2, fields(kind) + issuer + left + mpi(r) + mpi(s))


def certificate(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Return an OpenPGP certificate, as the owner of a key on a token may well have one."""
    body, name = key_body(private.public_key()), b"alice"
    data = b"\x99" + len(body).to_bytes(2, "big") + body
    data += b"\xb4" + len(name).to_bytes(4, "big") + name + ending(OF_A_KEY)
    der = private.sign(data, ec.ECDSA(hashes.SHA256()))
    bound = signature(OF_A_KEY, data, der, private.public_key())
    return packet(6, body) + packet(13, name) + bound


def gpg_says_good(
    private: ec.EllipticCurvePrivateKey, data: bytes, der: bytes, folder: Path
) -> bool:
    """Whether gpg takes what stands before the fields for a text that Alice has signed."""
    home = folder / "gnupg"
    home.mkdir(0o700)
    text, signed, key = (folder / name for name in ("text", "text.sig", "key"))
    text.write_bytes(data.removesuffix(ending(OF_A_TEXT)))
    signed.write_bytes(signature(OF_A_TEXT, data, der, private.public_key()))
    key.write_bytes(certificate(private))
    gpg = ["gpg", "--homedir", str(home), "--batch", "--no-autostart"]
    subprocess.run([*gpg, "--import", str(key)], check=True, capture_output=True, timeout=60)
    verify = [*gpg, "--status-fd", "1", "--verify", str(signed), str(text)]
    done = subprocess.run(verify, check=False, capture_output=True, timeout=60)
    return b"[GNUPG:] GOODSIG " in done.stdout


@pytest.mark.parametrize("where", ["a host key that is none", "a modulus", "a digest"])
def test_gpg_would_take_what_the_daemon_does_not_sign(
    scene: Scene, tmp_path: Path, where: str
) -> None:
    private, session = scene.plain, secrets.token_bytes(32)
    blob, end = ecdsa_blob(private), ending(OF_A_TEXT)
    host: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey = ed25519.Ed25519PrivateKey.generate()
    if where == "a modulus":
        host = rsa_key(end=TEXT + end)
    client = scene.forwarded()
    assert client.bind(host, session, forwarding=False)
    data = {
        "a host key that is none": login(blob, session=session, host_key=TEXT + end),
        "a modulus": login(blob, session=session, host_key=blob_of(host)),
        "a digest": sshsig(b"file", b"", b"sha512", secrets.token_bytes(64 - len(end)) + end),
    }[where]
    der = private.sign(data, ec.ECDSA(hashes.SHA256()))
    assert data.endswith(end)
    assert (TEXT in data) == (where != "a digest")
    assert gpg_says_good(private, data, der, tmp_path)
    assert client.sign(blob, data) == b""
