import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hsmagent.errors import ProtocolError
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.ssh import certificates, messages, signature, wire
from hsmagent.ssh.software import PrivateKey
from tests.ssh import vectors

RSA = Key(b"", KeyType.RSA, 2048)
P256 = Key(b"", KeyType.EC, 256, "secp256r1")
P521 = Key(b"", KeyType.EC, 521, "secp521r1")
ED25519 = Key(b"", KeyType.ED25519, 256)


@pytest.mark.parametrize(
    ("key", "flags", "name", "scheme"),
    [
        (RSA, 0, "ssh-rsa", Scheme.RSA_PKCS1_SHA1),
        (RSA, 2, "rsa-sha2-256", Scheme.RSA_PKCS1_SHA256),
        (RSA, 4, "rsa-sha2-512", Scheme.RSA_PKCS1_SHA512),
        (RSA, 6, "rsa-sha2-256", Scheme.RSA_PKCS1_SHA256),
        (RSA, 0x80000001, "ssh-rsa", Scheme.RSA_PKCS1_SHA1),
        (P256, 0, "ecdsa-sha2-nistp256", Scheme.ECDSA_SHA256),
        (P256, 6, "ecdsa-sha2-nistp256", Scheme.ECDSA_SHA256),
        (P521, 0, "ecdsa-sha2-nistp521", Scheme.ECDSA_SHA512),
        (ED25519, 4, "ssh-ed25519", Scheme.ED25519),
    ],
)
def test_flags_choose_the_algorithm(key: Key, flags: int, name: str, scheme: Scheme) -> None:
    assert signature.choose(key, flags) == (name, scheme)


@pytest.mark.parametrize(
    ("r", "s", "encoded"),
    [
        # zeros in front are stripped, and one is put before a set top bit
        (b"\0" * 31 + b"\x01", b"\x80" + b"\0" * 31, "0000000101000000210080" + "00" * 31),
        (b"\0" * 30 + b"\x80\x00", b"\x7f" * 32, "0000000300800000000020" + "7f" * 32),
    ],
)
def test_ecdsa_signatures_are_two_mpints(r: bytes, s: bytes, encoded: str) -> None:
    blob = signature.encode("ecdsa-sha2-nistp256", r + s)
    assert signature.decode(blob) == ("ecdsa-sha2-nistp256", bytes.fromhex(encoded))


@pytest.mark.parametrize("during", ["sshsig", "certsign", "login"])
def test_signatures_of_openssh_verify_and_others_do_not(during: str) -> None:
    request = messages.decode(vectors.message(during))
    response = messages.decode(vectors.message(during, "agent"))
    assert isinstance(request, messages.SignRequest)
    assert isinstance(response, messages.SignResponse)
    key = certificates.public_key(request.key_blob)
    assert signature.verifies(key, response.signature, request.data)
    assert not signature.verifies(key, response.signature, request.data + b"x")
    name, raw = signature.decode(response.signature)
    assert not signature.verifies(key, signature.encode(name, bytes(len(raw))), request.data)
    assert not signature.verifies(key, wire.text("x") + wire.string(raw), request.data)
    with pytest.raises(ProtocolError):
        signature.verifies(key, response.signature + b"x", request.data)


def sign(private: PrivateKey, data: bytes) -> bytes:
    match private:
        case rsa.RSAPrivateKey():
            return private.sign(data, padding.PKCS1v15(), hashes.SHA1())
        case ed25519.Ed25519PrivateKey():
            return private.sign(data)
    return private.sign(data, ec.ECDSA(hashes.SHA384()))


def test_a_host_may_still_sign_with_sha1() -> None:
    private = rsa.generate_private_key(65537, 2048)
    blob = signature.encode("ssh-rsa", sign(private, b"id"))
    assert signature.verifies(private.public_key(), blob, b"id")
