"""A content key for every ciphertext, and the right one only for the right ciphertext."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.errors import ProtocolError, TokenError, TokenGone
from hsmagent.token.unwrap import unwrap
from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap
from tests.parts.altered import altered
from tests.parts.mail.people import person
from tests.parts.mail.pki import SoftwareDecrypter

KEY = bytes(range(1, 33))
SIZE = 256


def decrypter(kind: str) -> SoftwareDecrypter:
    who = person(kind)
    return SoftwareDecrypter(who.key, who.private)


def raw(block: bytes) -> bytes:
    """Encrypt a whole block, right or wrong."""
    numbers = person("rsa").private.public_key().public_numbers()
    return int(pow(int.from_bytes(block, "big"), numbers.e, numbers.n)).to_bytes(SIZE, "big")


def pkcs1(key: bytes = KEY, *, fill: bytes = b"\x55") -> bytes:
    return b"\0\2" + (fill * SIZE)[: SIZE - 3 - len(key)] + b"\0" + key


async def test_pkcs1_of_our_own_and_of_cryptography() -> None:
    assert await unwrap(decrypter("rsa"), RsaUnwrap(raw(pkcs1()), "pkcs1"), 32) == KEY
    made = person("rsa").private.public_key().encrypt(KEY, padding.PKCS1v15())
    assert await unwrap(decrypter("rsa"), RsaUnwrap(made, "pkcs1"), 32) == KEY


@pytest.mark.parametrize(
    "block",
    [
        b"\1" + pkcs1()[1:],
        b"\0\1" + pkcs1()[2:],
        pkcs1()[:5] + b"\0" + pkcs1()[6:],
        pkcs1()[:100] + b"\0" + pkcs1()[101:],
        pkcs1()[: -len(KEY) - 1] + b"\7" + KEY,
        pkcs1(KEY[:24]),
        pkcs1(KEY + b"x"),
        bytes(SIZE),
        b"\0" + b"\xff" * (SIZE - 1),
    ],
)
async def test_a_wrong_block_gives_a_random_key_that_stays_the_same(block: bytes) -> None:
    what = RsaUnwrap(raw(block), "pkcs1")
    key = await unwrap(decrypter("rsa"), what, 32)
    assert len(key) == 32
    assert key != KEY
    assert key != block[-32:]
    assert await unwrap(decrypter("rsa"), what, 32) == key
    other = RsaUnwrap(raw(altered(block)), "pkcs1")
    assert await unwrap(decrypter("rsa"), other, 32) != key


@pytest.mark.parametrize("block", [pkcs1(), bytes(SIZE)], ids=["right", "wrong"])
async def test_fields_that_do_not_matter_change_no_key(block: bytes) -> None:
    """Or whoever asks twice would learn whether the padding was right."""
    plain = RsaUnwrap(raw(block), "pkcs1")
    odd = RsaUnwrap(raw(block), "pkcs1", "sha512", "sha256", b"label")
    assert await unwrap(decrypter("rsa"), plain, 32) == await unwrap(decrypter("rsa"), odd, 32)
    ecdh = [
        EcdhUnwrap(b"", b"", "sha256", 256, b"", cofactor=cofactor) for cofactor in (True, False)
    ]
    assert len({await unwrap(decrypter("p256"), what, 32) for what in ecdh}) == 1


@pytest.mark.parametrize("ciphertext", [b"", b"\1", b"\xff" * SIZE, bytes(SIZE + 1), bytes(SIZE)])
async def test_a_ciphertext_that_cannot_be_one(ciphertext: bytes) -> None:
    for form in ("pkcs1", "oaep"):
        assert len(await unwrap(decrypter("rsa"), RsaUnwrap(ciphertext, form), 16)) == 16


@pytest.mark.parametrize("label", [b"", b"a label"])
@pytest.mark.parametrize("mgf", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384"])
async def test_oaep(digest: str, mgf: str, label: bytes) -> None:
    known: Any = {
        "sha1": hashes.SHA1(),
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }
    how = padding.OAEP(padding.MGF1(known[mgf]), known[digest], label or None)
    made = person("rsa").private.public_key().encrypt(KEY, how)
    assert await unwrap(decrypter("rsa"), RsaUnwrap(made, "oaep", digest, mgf, label), 32) == KEY
    for wrong in (
        RsaUnwrap(made, "oaep", digest, mgf, b"another"),
        RsaUnwrap(made, "oaep", "sha512", mgf, label),
        RsaUnwrap(made, "pkcs1"),
    ):
        assert await unwrap(decrypter("rsa"), wrong, 32) != KEY
    assert (
        await unwrap(decrypter("rsa"), RsaUnwrap(made, "oaep", digest, mgf, label), 16)
    ) not in KEY


async def test_ecdh() -> None:
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    shared = ephemeral.exchange(ec.ECDH(), person("p256").private.public_key())
    kek = X963KDF(hashes.SHA256(), 32, b"info").derive(shared)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    wrapped = keywrap.aes_key_wrap(kek, KEY)
    good = EcdhUnwrap(wrapped, point, "sha256", 256, b"info")
    assert await unwrap(decrypter("p256"), good, 32) == KEY
    for bad in (
        EcdhUnwrap(wrapped, point, "sha256", 256, b"other"),
        EcdhUnwrap(wrapped, point, "sha384", 256, b"info"),
        EcdhUnwrap(altered(wrapped), point, "sha256", 256, b"info"),
        EcdhUnwrap(b"", point, "sha256", 256, b"info"),
    ):
        assert await unwrap(decrypter("p256"), bad, 32) != KEY
    assert await unwrap(decrypter("p256"), good, 16) not in KEY


async def test_an_invalid_point_never_meets_the_private_key() -> None:
    class Watched(SoftwareDecrypter):
        async def derive(
            self, point: bytes, *, cofactor: bool, pin: bytearray | None = None
        ) -> bytes:
            raise AssertionError

    watched = Watched(person("p256").key, person("p256").private)
    for point in (b"", b"\4" + bytes(64), b"\4" + b"\1" * 64, b"\0", b"\4" + b"\1" * 96):
        key = await unwrap(watched, EcdhUnwrap(bytes(40), point, "sha256", 256, b""), 32)
        assert len(key) == 32


async def test_token_errors_pass_unless_they_speak_of_the_ciphertext() -> None:
    class Failing(SoftwareDecrypter):
        error: TokenError

        async def decrypt_raw(self, ciphertext: bytes, pin: bytearray | None = None) -> bytes:
            raise self.error

    failing = Failing(person("rsa").key, None)
    what = RsaUnwrap(raw(pkcs1()), "pkcs1")
    failing.error = TokenGone("gone")
    with pytest.raises(TokenGone):
        await unwrap(failing, what, 32)
    failing.error = TokenError("invalid", rv=0x40)
    assert await unwrap(failing, what, 32) != KEY


@pytest.mark.parametrize(
    ("what", "length"),
    [
        (RsaUnwrap(b"", "none"), 32),
        (RsaUnwrap(b"", "oaep", "md5"), 32),
        (RsaUnwrap(b"", "pkcs1"), 20),
        (EcdhUnwrap(b"", b"", "md5", 256, b""), 32),
        (EcdhUnwrap(b"", b"", "sha256", 512, b""), 32),
    ],
)
async def test_a_request_that_no_mail_makes(what: Any, length: int) -> None:
    with pytest.raises(ProtocolError):
        await unwrap(decrypter("rsa"), what, length)
