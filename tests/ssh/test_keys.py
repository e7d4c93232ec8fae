import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.model import KeyType, fingerprint
from hsmagent.ssh import keys, messages, wire
from hsmagent.ssh.keys import PlainPublicKey
from tests.ssh import builders, vectors

PUBLIC: list[PlainPublicKey] = [
    rsa.generate_private_key(65537, 2048).public_key(),
    ec.generate_private_key(ec.SECP256R1()).public_key(),
    ec.generate_private_key(ec.SECP384R1()).public_key(),
    ec.generate_private_key(ec.SECP521R1()).public_key(),
    ed25519.Ed25519PrivateKey.generate().public_key(),
]


def spki(key: PlainPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", PUBLIC, ids=lambda key: type(key).__name__)
def test_blobs_are_those_of_another_implementation(key: PlainPublicKey) -> None:
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    blob = keys.blob_of(spki(key))
    assert blob == base64.b64decode(line.split()[1])
    assert keys.authorized_key(blob, "me") == line.decode() + " me"
    decoded = keys.decode(blob)
    assert not isinstance(decoded, keys.SkPublicKey)
    assert spki(decoded) == spki(key)


@pytest.mark.parametrize("key", PUBLIC, ids=lambda key: type(key).__name__)
def test_a_blob_cut_short_or_grown_is_refused(key: PlainPublicKey) -> None:
    blob = keys.encode(key)
    for length in range(len(blob)):
        with pytest.raises(ProtocolError):
            keys.decode(blob[:length])
    with pytest.raises(ProtocolError):
        keys.decode(blob + b"\0")


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.SECP256K1()])
def test_a_curve_without_a_name_in_ssh_has_no_blob(curve: ec.EllipticCurve) -> None:
    assert keys.blob_of(spki(ec.generate_private_key(curve).public_key())) is None


def test_what_is_no_key_has_no_blob() -> None:
    assert keys.blob_of(b"0\0") is None


def test_keys_openssh_listed_have_its_fingerprints() -> None:
    answer = messages.decode(vectors.message("list", "agent"))
    assert isinstance(answer, messages.IdentitiesAnswer)
    blob = answer.identities[0][0]
    line = keys.authorized_key(blob).encode()
    assert keys.describe(keys.decode(blob)).key_type in KeyType
    assert load_ssh_public_key(line) is not None
    assert fingerprint(blob).startswith("SHA256:")
    assert not fingerprint(blob).endswith("=")


@pytest.mark.parametrize(
    "blob",
    [
        wire.text("ssh-dss") + wire.mpint(1) * 4,
        wire.text("ecdsa-sha2-nistp256") + wire.text("nistp384") + wire.string(b"\4" + bytes(64)),
        wire.text("ecdsa-sha2-nistp256") + wire.text("nistp256") + wire.string(b"\4" + bytes(64)),
        wire.text("ecdsa-sha2-nistp256") + wire.text("nistp256") + wire.string(b"\0"),
        wire.text("nistp256") + wire.text("nistp256") + wire.string(b"\4" + bytes(64)),
        wire.text("ssh-rsa") + wire.mpint(65537) + wire.mpint(1 << 511 | 1),
        wire.text("ssh-rsa") + wire.mpint(2) + wire.mpint(1 << 2047 | 1),
        wire.text("ssh-rsa") + wire.mpint(1 << 64 | 1) + wire.mpint(1 << 2047 | 1),
        wire.text("ssh-ed25519") + wire.string(bytes(31)),
    ],
)
def test_unsound_keys_are_refused(blob: bytes) -> None:
    with pytest.raises(ProtocolError):
        keys.decode(blob)


@given(st.binary(max_size=64), st.sampled_from(builders.KEY_TYPES))
def test_any_bytes_are_a_key_or_a_protocol_error(rest: bytes, name: str) -> None:
    for blob in (rest, wire.text(name) + rest):
        try:
            keys.decode(blob)
        except ProtocolError:
            continue
