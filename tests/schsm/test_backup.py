"""Wrapped keys; the golden blobs were put together with openssl's commands alone."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.schsm import backup, pkcs15
from hsmagent.schsm.backup import Backup, KeyKind, WrongDkek
from hsmagent.schsm.card import END_ENTITY, PRIVATE_KEY_DESCRIPTION, file_id
from hsmagent.schsm.dkek import Dkek
from tests.parts.mail.people import person
from tests.parts.token.card import Card, furnished
from tests.parts.token.card.domain import Domain
from tests.parts.token.card.furnished import BRAINPOOL, P256, RSA, rsa_key

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
DKEK = Dkek(bytes.fromhex(GOLDEN["dkek"]))


def spki(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


@pytest.mark.parametrize("name", ["ec", "rsa", "rsa_crt"])
def test_opens_the_golden_blobs(name: str) -> None:
    wrapped = backup.blob(bytes.fromhex(GOLDEN[name]["blob"]))
    assert wrapped.kcv.hex() == GOLDEN["kcv"]
    assert spki(backup.decrypt(wrapped, DKEK)) == GOLDEN[name]["spki"]


def test_the_card_wraps_as_the_golden_blobs_are_wrapped() -> None:
    domain = Domain(1, 0, DKEK)
    for key, kind in (
        (rsa_key(), KeyKind.RSA),
        (ec.generate_private_key(ec.SECP256R1()), KeyKind.EC),
    ):
        blob = backup.blob(domain.wrap(key))
        assert blob.kind is kind
        assert spki(backup.decrypt(blob, DKEK)) == spki(key)
    assert len(domain.wrap(rsa_key())) == 587  # what a genuine card gives


def test_a_changed_blob_is_seen() -> None:
    data = bytes.fromhex(GOLDEN["ec"]["blob"])
    for at in (0, 30, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(WrongDkek):
            backup.decrypt(backup.blob(bytes(changed)), DKEK)
    with pytest.raises(WrongDkek):
        backup.decrypt(backup.blob(data), Dkek(bytes(32)))


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        backup.blob(backup.read(data).blob)


@pytest.mark.parametrize(
    "data", [b"", bytes(8), bytes(8) + b"\x05" + bytes(24), bytes(8) + b"\x63" + bytes(40)]
)
def test_what_is_no_blob_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="wrapped key"):
        backup.blob(data)


def stored(card: Card, number: int) -> Backup:
    content = card.files.content
    return Backup(
        b"blob",
        content[file_id(PRIVATE_KEY_DESCRIPTION, number)],
        content[file_id(END_ENTITY, number)],
    )


@pytest.mark.parametrize("number", [P256, RSA, BRAINPOOL])
def test_a_file_holds_what_lies_on_the_card(number: int) -> None:
    card = furnished()
    kept = stored(card, number)
    assert backup.read(kept.encode()) == kept
    for part in (
        Backup(b"blob"),
        Backup(b"blob", kept.description),
        Backup(b"blob", b"", kept.certificate),
    ):
        assert backup.read(part.encode()) == part
    public = kept.public_key()
    assert public is not None
    assert public.public_numbers() == card.keys[number].public_key().public_numbers()


def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    good = person("p256").der
    curve, version = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("a003020102")
    for old, new in ((curve, curve[:-1] + b"\x7f"), (version, version[:-1] + b"\x07")):
        assert old in good
        with pytest.raises(ValueError, match="cannot be read"):
            Backup(b"blob", b"", good.replace(old, new)).public_key()


def test_a_description_says_which_key_it_is() -> None:
    description = stored(furnished(), RSA).description
    assert pkcs15.key_description(description) == pkcs15.KeyDescription("mail", b"\x02", RSA)
    other = pkcs15.renumbered(description, 7)
    assert pkcs15.key_description(other) == pkcs15.KeyDescription("mail", b"\x02", 7)
    assert pkcs15.renumbered(other, RSA) == description
    with pytest.raises(ValueError, match="description"):
        pkcs15.key_description(stored(furnished(), RSA).certificate[:0])


def test_a_label_is_read_as_it_was_written() -> None:
    assert pkcs15.token_label(pkcs15.token_info("Wörk")) == "Wörk"
    assert pkcs15.token_info("UT1").hex() == "300c020100800355543103020520"
