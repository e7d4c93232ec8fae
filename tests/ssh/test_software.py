import math
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import HsmAgentError, ProtocolError, Refused, TokenError
from hsmagent.model import Scheme
from hsmagent.ssh import keys, signature, software, wire
from hsmagent.ssh.software import PrivateKey
from hsmagent.ssh.wire import Reader
from tests.ssh import builders, vectors

RSA = rsa.generate_private_key(65537, 2048)
PRIVATE: list[PrivateKey] = [
    RSA,
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    ec.generate_private_key(ec.SECP521R1()),
    builders.ed25519_key(),
]
ADDED = ["add ed25519", "add ecdsa", "add rsa"]
CERTIFIED = ["add cert ed25519", "add cert ecdsa", "add cert rsa"]


async def check(added: software.Added, flags: int) -> None:
    name, scheme = signature.choose(added.signer.key, flags)
    blob = signature.encode(name, await added.signer.sign(scheme, b"data"))
    public = keys.decode(keys.blob_of(added.signer.key.spki) or b"")
    assert signature.verifies(public, blob, b"data")


@pytest.mark.parametrize("during", ADDED + CERTIFIED)
async def test_what_ssh_add_sends_is_kept_and_signs(during: str) -> None:
    reader = Reader(vectors.message(during)[1:])
    added = software.read(reader)
    reader.end()
    assert added.comment == "me"
    certified = keys.type_name(added.blob).endswith(keys.CERTIFICATE)
    assert certified is (during in CERTIFIED)
    for flags in (0, 2, 4):
        await check(added, flags)


@pytest.mark.parametrize("private", PRIVATE, ids=lambda key: type(key).__name__)
async def test_every_kind_of_key_signs_with_raw_widths(private: PrivateKey) -> None:
    added = software.read(Reader(builders.private_fields(private) + wire.text("x")))
    for _ in range(20):
        await check(added, 2)
    _, scheme = signature.choose(added.signer.key, 0)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        size = (private.key_size + 7) // 8
        assert len(await added.signer.sign(scheme, b"x")) == 2 * size


@pytest.mark.parametrize(
    "name",
    ["ssh-dss", "ssh-xmss@openssh.com", "", "ecdsa-sha2-nistp192", "sk-ecdsa-sha2-nistp256@x"],
)
def test_other_kinds_are_refused(name: str) -> None:
    with pytest.raises(HsmAgentError):
        software.read(Reader(wire.text(name) + bytes(100)))


@pytest.mark.parametrize("during", ADDED + CERTIFIED)
def test_a_key_cut_short_is_refused(during: str) -> None:
    body = vectors.message(during)[1:]
    for length in range(0, len(body), 3):
        with pytest.raises(HsmAgentError):
            software.read(Reader(body[:length]))


def rsa_fields(**changed: int) -> bytes:
    numbers = RSA.private_numbers()
    values = {
        "n": numbers.public_numbers.n,
        "e": numbers.public_numbers.e,
        "d": numbers.d,
        "iqmp": numbers.iqmp,
        "p": numbers.p,
        "q": numbers.q,
    } | changed
    return wire.text("ssh-rsa") + b"".join(map(wire.mpint, values.values()))


@pytest.mark.parametrize(
    "changed",
    [
        {"p": 0},
        {"q": 1},
        {"p": RSA.private_numbers().p + 1},
        {"d": 3, "iqmp": 7},
        {"d": 3, "p": RSA.private_numbers().p + 2},
        {"d": 1 << 2100},
        {"iqmp": 1 << 1100},
        {"n": 15, "p": 3, "q": 5},
        {"e": 2},
        {"p": 1, "q": RSA.private_numbers().public_numbers.n},
    ],
)
def test_an_rsa_key_that_is_not_sound_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(HsmAgentError):
        software.read(Reader(rsa_fields(**changed) + wire.text("x")))


@pytest.mark.parametrize("changed", [{"d": 3}, {"iqmp": 7}, {"p": RSA.private_numbers().p + 2}])
async def test_an_rsa_key_is_sound_whose_signatures_are_good(changed: dict[str, int]) -> None:
    """OpenSSL signs by the primes, and by d where that came out wrong."""
    await check(software.read(Reader(rsa_fields(**changed) + wire.text("x"))), 2)


async def test_a_large_rsa_key_is_added_at_once_and_a_larger_one_refused() -> None:
    # Its primes are none, but nobody waits until that is found out.
    p, q, e = (1 << 4095) + 3, (1 << 4096) - 1, 65537
    while math.gcd(e, (p - 1) * (q - 1)) != 1 or math.gcd(p, q) != 1:
        p += 2
    numbers = {
        "n": p * q,
        "e": e,
        "d": pow(e, -1, math.lcm(p - 1, q - 1)),
        "iqmp": pow(q, -1, p),
        "p": p,
        "q": q,
    }
    started = time.process_time()
    added = software.read(Reader(rsa_fields(**numbers) + wire.text("x")))
    assert time.process_time() - started < 1
    with pytest.raises(TokenError):
        await check(added, 2)
    with pytest.raises(Refused):
        software.read(Reader(rsa_fields(n=numbers["n"] << 8) + wire.text("x")))


def test_a_lopsided_rsa_key_or_one_with_a_long_exponent_is_refused() -> None:
    """Each signature of such a key takes several times as long as of any that programs make."""
    for p, q, e in (
        (RSA.private_numbers().p, 2**2039 + 7, 65537),
        (RSA.private_numbers().p, RSA.private_numbers().q, 2**65 + 1),
    ):
        numbers = {"n": p * q, "e": e, "p": p, "q": q, "d": 5, "iqmp": pow(q, -1, p)}
        with pytest.raises(Refused):
            software.read(Reader(rsa_fields(**numbers) + wire.text("x")))


async def test_only_what_takes_long_is_signed_aside() -> None:
    done: list[software.Work] = []

    async def aside(work: software.Work) -> bytes:
        done.append(work)
        return work()

    for bits, times in ((2048, 0), (4096, 0), (4112, 1)):
        private = rsa.generate_private_key(65537, bits)
        fields = builders.private_fields(private) + wire.text("x")
        assert await software.read(Reader(fields), aside).signer.sign(
            Scheme.RSA_PKCS1_SHA256, b"data"
        )
        assert len(done) == times


async def test_where_sha1_is_forbidden_nothing_is_signed_with_it_and_nothing_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # BLAKE2 with RSA fails as SHA-1 does under a policy that forbids it.
    monkeypatch.setitem(signature.HASHES, "sha1", hashes.BLAKE2s(32))
    private = rsa.generate_private_key(65537, 2048)
    signer = software.SoftwareSigner(private, keys.describe(private.public_key()))
    with pytest.raises(TokenError, match="does not allow rsa-pkcs1-sha1"):
        await signer.sign(Scheme.RSA_PKCS1_SHA1, b"data")
    blob = signature.encode("ssh-rsa", bytes(256))
    assert not signature.verifies(private.public_key(), blob, b"data")


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, two = builders.ed25519_key(), builders.ed25519_key()
    point = one.public_key().public_bytes_raw()
    for secret in (
        two.private_bytes_raw() + point,
        one.private_bytes_raw() + two.public_key().public_bytes_raw(),
        one.private_bytes_raw(),
        b"",
    ):
        body = wire.text("ssh-ed25519") + wire.string(point) + wire.string(secret)
        with pytest.raises(ProtocolError):
            software.read(Reader(body + wire.text("x")))
    other = builders.blob_of(PRIVATE[1]) + wire.mpint(5)
    with pytest.raises(ProtocolError):
        software.read(Reader(other + wire.text("x")))


def test_a_certificate_of_another_key_is_refused() -> None:
    authority, one, two = (builders.ed25519_key() for _ in range(3))
    body = (
        wire.text("ssh-ed25519-cert-v01@openssh.com")
        + wire.string(builders.certificate(authority, one, host=False))
        + builders.private_fields(two)[len(wire.text("ssh-ed25519")) :]
        + wire.text("x")
    )
    with pytest.raises(ProtocolError):
        software.read(Reader(body))


@given(st.binary(max_size=64), st.sampled_from(builders.KEY_TYPES))
def test_any_bytes_are_a_key_or_an_error_of_ours(rest: bytes, name: str) -> None:
    for body in (rest, wire.text(name) + rest, wire.text(name + keys.CERTIFICATE) + rest):
        try:
            software.read(Reader(body))
        except HsmAgentError:
            continue
