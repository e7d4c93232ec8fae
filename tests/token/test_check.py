"""What is asked of a token for a scheme, and the check of what it gives back."""

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.errors import TokenError
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.token import check as verify
from hsmagent.token.check import Checker
from hsmagent.token.schemes import prepare
from hsmagent.worker import spec

DATA = b"data"
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()


def key_of(
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> Key:
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(private, rsa.RSAPrivateKey):
        return Key(spki, KeyType.RSA, private.key_size)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return Key(spki, KeyType.EC, private.key_size, private.curve.name)
    return Key(spki, KeyType.ED25519, 256)


@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if "pkcs1" in scheme])
def test_rsa_pkcs1(scheme: Scheme) -> None:
    prepared = prepare(key_of(RSA), scheme, DATA)
    assert (prepared.mechanism, prepared.parameter) == (spec.CKM_RSA_PKCS, b"")
    # What C_Sign does with it: type 1 padding around the DigestInfo, then the private key.
    block = b"\0\1" + b"\xff" * (253 - len(prepared.data)) + b"\0" + prepared.data
    numbers = RSA.private_numbers()
    signature = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    checker = Checker(key_of(RSA))
    assert checker.holds(scheme, prepared.digest, signature.to_bytes(256, "big"))
    assert not checker.holds(scheme, hashlib.new(scheme.hash_name, b"other").digest(), bytes(256))


def test_where_sha1_is_forbidden_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # BLAKE2 with RSA fails as SHA-1 does under a policy that forbids it.
    blake = utils.Prehashed(hashes.BLAKE2s(32))
    monkeypatch.setitem(verify._PREHASHED, Scheme.RSA_PKCS1_SHA1, blake)
    with pytest.raises(TokenError, match="does not allow rsa-pkcs1-sha1"):
        Checker(key_of(RSA)).holds(Scheme.RSA_PKCS1_SHA1, bytes(32), bytes(256))


@pytest.mark.parametrize(
    ("scheme", "numbers", "chosen"),
    [
        (Scheme.RSA_PSS_SHA256, (0x250, 2, 32), hashes.SHA256()),
        (Scheme.RSA_PSS_SHA384, (0x260, 3, 48), hashes.SHA384()),
        (Scheme.RSA_PSS_SHA512, (0x270, 4, 64), hashes.SHA512()),
    ],
)
def test_rsa_pss(
    scheme: Scheme, numbers: tuple[int, int, int], chosen: hashes.HashAlgorithm
) -> None:
    prepared = prepare(key_of(RSA), scheme, DATA)
    assert prepared.mechanism == spec.CKM_RSA_PKCS_PSS
    assert prepared.parameter == struct.pack("@LLL", *numbers)
    assert prepared.data == hashlib.new(scheme.hash_name, DATA).digest()
    pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
    signature = RSA.sign(DATA, pss, chosen)
    checker = Checker(key_of(RSA))
    assert checker.holds(scheme, prepared.digest, signature)
    assert not checker.holds(Scheme.RSA_PKCS1_SHA256, prepared.digest[:32], signature)


@pytest.mark.parametrize("private", [P256, P521])
@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if "ecdsa" in scheme])
def test_ecdsa(private: ec.EllipticCurvePrivateKey, scheme: Scheme) -> None:
    key = key_of(private)
    size = (key.bits + 7) // 8
    prepared = prepare(key, scheme, DATA)
    assert prepared.mechanism == spec.CKM_ECDSA
    assert prepared.data == prepared.digest[:size]  # FIPS 186-5, section 6.4: leftmost bits
    prehashed = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}
    chosen = prehashed[len(prepared.digest)]
    r, s = utils.decode_dss_signature(
        private.sign(prepared.digest, ec.ECDSA(utils.Prehashed(chosen)))
    )
    signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    checker = Checker(key)
    assert checker.holds(scheme, prepared.digest, signature)
    for wrong in (signature[:-1], signature + b"\0", bytes(2 * size), b""):
        assert not checker.holds(scheme, prepared.digest, wrong)


def test_ed25519() -> None:
    prepared = prepare(key_of(ED), Scheme.ED25519, DATA)
    assert (prepared.mechanism, prepared.data) == (spec.CKM_EDDSA, DATA)
    checker = Checker(key_of(ED))
    assert checker.holds(Scheme.ED25519, prepared.digest, ED.sign(DATA))
    assert not checker.holds(Scheme.ED25519, b"other", ED.sign(DATA))


@pytest.mark.parametrize(
    ("private", "scheme"),
    [(RSA, Scheme.ED25519), (P256, Scheme.RSA_PSS_SHA256), (ED, Scheme.ECDSA_SHA256)],
)
def test_a_scheme_for_another_kind_of_key(private: rsa.RSAPrivateKey, scheme: Scheme) -> None:
    with pytest.raises(TokenError, match="cannot sign with"):
        prepare(key_of(private), scheme, DATA)
