"""The virtual card through the real OpenSC: what a person's card can do, this one can."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.schsm.apdu import INS, SW
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.card.furnished import BRAINPOOL, P256, RSA
from tests.parts.token.pkcs11_tool import ToolFailed, pkcs11_tool, run_tool
from tests.parts.until import until

MESSAGE = b"to be signed"


def listing(reader: Reader, *arguments: str, pin: str | None = None) -> str:
    return pkcs11_tool(reader.provider, "--list-objects", *arguments, pin=pin)


def flags(reader: Reader) -> str:
    return next(line for line in pkcs11_tool(reader.provider, "-L").splitlines() if "flags" in line)


def wrong_pin(reader: Reader) -> str:
    with pytest.raises(ToolFailed) as failed:
        pkcs11_tool(reader.provider, "--list-objects", pin="000000")
    return str(failed.value)


def test_shows_the_token(kept: Reader) -> None:
    text = pkcs11_tool(kept.provider, "--list-slots")
    assert "token label        : work" in text  # older: "work (UserPIN)"
    assert "DENK0100001" in text
    assert "PIN pad" not in text


def test_lists_public_objects_without_a_pin(kept: Reader) -> None:
    text = listing(kept)
    assert text.count("Public Key Object; RSA 2048 bits") == 1
    assert text.count("Public Key Object; EC") == 3  # one is the authority's
    assert text.count("Certificate Object") == 3
    assert "note" in text
    assert "secret" not in text
    assert "Private Key" not in text


def test_lists_private_objects_with_the_pin(kept: Reader) -> None:
    text = listing(kept, pin=DEFAULT_PIN)
    assert text.count("Private Key Object; RSA") == 1
    assert text.count("Private Key Object; EC") == 2
    assert "secret" in text


@pytest.mark.parametrize(
    ("label", "value"), [("note", "for everyone"), ("secret", "for the owner")]
)
def test_reads_data_objects(kept: Reader, label: str, value: str) -> None:
    read = ["--read-object", "--type", "data", "--label", label]
    assert value in pkcs11_tool(kept.provider, *read, pin=DEFAULT_PIN)


def test_passes_the_tools_own_test(kept: Reader) -> None:
    assert "No errors" in pkcs11_tool(kept.provider, "--test", pin=DEFAULT_PIN)


@pytest.mark.parametrize("number", [P256, BRAINPOOL])
@pytest.mark.parametrize("name", ["sha1", "sha256", "sha384", "sha512"])
def test_signs_a_digest_with_ecdsa(kept: Reader, tmp_path: Path, number: int, name: str) -> None:
    digest = hashlib.new(name, MESSAGE).digest()[:32]
    signature = sign(kept, tmp_path, number, digest, "ECDSA", "--signature-format", "openssl")
    key = kept.card.keys[number].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    fitting = hashes.SHA1() if len(digest) == 20 else hashes.SHA256()
    key.verify(signature, digest, ec.ECDSA(Prehashed(fitting)))


def test_signs_with_rsa(kept: Reader, tmp_path: Path) -> None:
    key = kept.card.keys[RSA].public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    signature = sign(kept, tmp_path, RSA, MESSAGE, "SHA512-RSA-PKCS")
    key.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA512())
    signature = sign(kept, tmp_path, RSA, MESSAGE, "SHA256-RSA-PKCS-PSS")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    key.verify(signature, MESSAGE, pss, hashes.SHA256())


def test_decrypts_with_rsa(kept: Reader, tmp_path: Path) -> None:
    key = kept.card.keys[RSA].public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    secret = key.encrypt(MESSAGE, padding.PKCS1v15())
    assert run_on(kept, tmp_path, RSA, secret, "--decrypt", "-m", "RSA-PKCS") == MESSAGE


def test_agrees_on_a_secret_with_ecdh(kept: Reader, tmp_path: Path) -> None:
    ours = kept.card.keys[P256]
    assert isinstance(ours, ec.EllipticCurvePrivateKey)
    peer = ec.generate_private_key(ec.SECP256R1())
    der = peer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    shared = run_on(kept, tmp_path, P256, der, "--derive", "-m", "ECDH1-DERIVE")
    assert shared == peer.exchange(ec.ECDH(), ours.public_key())


def test_generates_keys(reader: Reader, tmp_path: Path) -> None:
    for number, kind in (("10", "EC:prime256v1"), ("11", "rsa:2048"), ("12", "EC:secp384r1")):
        make = ["--keypairgen", "--key-type", kind, "--id", number, "--label", f"new {number}"]
        pkcs11_tool(reader.provider, *make, pin=DEFAULT_PIN)
    assert listing(reader, "--type", "pubkey").count("new 1") == 3
    out = tmp_path / "public.der"
    read = ["--read-object", "--type", "pubkey", "--id", "10", "--output-file", str(out)]
    pkcs11_tool(reader.provider, *read)
    public = load_der_public_key(out.read_bytes())
    assert public in [key.public_key() for key in reader.card.keys.values()]


def test_counts_wrong_pins_down_to_locked(reader: Reader) -> None:
    card = reader.card
    assert card.user is not None
    assert "PIN" not in flags(reader).replace("PIN initialized", "")
    wrong_pin(reader)
    assert "user PIN count low" in flags(reader)
    wrong_pin(reader)
    assert "final user PIN try" in flags(reader)
    assert "CKR_PIN_LOCKED" in wrong_pin(reader)
    assert "user PIN locked" in flags(reader)
    assert (card.user.left, card.user.wrong) == (0, 3)


def test_the_right_pin_restores_the_tries(reader: Reader) -> None:
    assert reader.card.user is not None
    wrong_pin(reader)
    listing(reader, pin=DEFAULT_PIN)
    assert reader.card.user.left == 3


def test_tries_survive_unplugging(reader: Reader) -> None:
    assert reader.card.user is not None
    wrong_pin(reader)
    reader.unplug()
    reader.plug()
    assert "user PIN count low" in flags(reader)


def test_the_so_pin_unblocks(reader: Reader) -> None:
    for _ in range(3):
        wrong_pin(reader)
    unblock = ["--login", "--login-type", "so", "--so-pin", DEFAULT_SO_PIN]
    pkcs11_tool(reader.provider, *unblock, "--init-pin", "--new-pin", "123456")
    assert "Private Key" in listing(reader, pin="123456")


def test_changes_the_pin(reader: Reader) -> None:
    pkcs11_tool(reader.provider, "--change-pin", "--new-pin", "123456", pin=DEFAULT_PIN)
    assert "Private Key" in listing(reader, pin="123456")


def test_initialises(reader: Reader) -> None:
    pins = ["--so-pin", DEFAULT_SO_PIN, "--pin", "123456"]
    run_tool(reader.provider, "sc-hsm-tool", "--initialize", *pins, "--label", "fresh")
    assert ": fresh" in pkcs11_tool(reader.provider, "--list-slots")
    assert reader.card.keys == {}
    assert "Key Object" not in listing(reader, pin="123456")


def test_deletes_a_key(reader: Reader) -> None:
    delete = ["--delete-object", "--type", "privkey", "--id", "01"]
    pkcs11_tool(reader.provider, *delete, pin=DEFAULT_PIN)
    assert P256 not in reader.card.keys


def test_is_unplugged_and_plugged_in(reader: Reader) -> None:
    reader.unplug()
    until(lambda: "work" not in pkcs11_tool(reader.provider, "--list-slots"))
    reader.plug()
    assert "work" in pkcs11_tool(reader.provider, "--list-slots")


def test_is_unplugged_in_the_middle_of_a_signature(reader: Reader, tmp_path: Path) -> None:
    reader.card.knobs.unplug_at[INS.SIGN] = 1
    with pytest.raises(ToolFailed, match="CKR_"):
        sign(reader, tmp_path, P256, bytes(32), "ECDSA")
    reader.plug()
    sign(reader, tmp_path, P256, bytes(32), "ECDSA")


def test_answers_a_status_word_that_the_test_chose(reader: Reader, tmp_path: Path) -> None:
    knobs = reader.card.knobs
    knobs.override[INS.SIGN] = (SW.INTERNAL, 99)  # the driver and the tool try more than once
    with pytest.raises(ToolFailed, match="CKR_GENERAL_ERROR"):
        sign(reader, tmp_path, P256, bytes(32), "ECDSA")
    assert knobs.override.pop(INS.SIGN) < (SW.INTERNAL, 99)
    sign(reader, tmp_path, P256, bytes(32), "ECDSA")


def test_pcscd_is_restarted(reader: Reader) -> None:
    reader.restart_pcscd()
    assert "work" in pkcs11_tool(reader.provider, "--list-slots")


def sign(
    reader: Reader, folder: Path, number: int, data: bytes, mechanism: str, *more: str
) -> bytes:
    return run_on(reader, folder, number, data, "--sign", "-m", mechanism, *more)


def run_on(reader: Reader, folder: Path, number: int, data: bytes, *arguments: str) -> bytes:
    """Let the tool use key `number` on `data`; returns what it wrote."""
    source, target = folder / "in", folder / "out"
    source.write_bytes(data)
    files = ["--input-file", str(source), "--output-file", str(target)]
    pkcs11_tool(reader.provider, *arguments, "--id", f"{number:02x}", *files, pin=DEFAULT_PIN)
    return target.read_bytes()


def test_runs_a_command_with_a_card() -> None:
    command = [sys.executable, "-m", "tests.parts.token.card", "--genuine", "opensc-tool", "--atr"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "3b:fe:18" in ended.stdout


def test_logs_in_by_its_pin_pad(reader: Reader) -> None:
    reader.card.pad = []
    assert "PIN pad present" in flags(reader)
    reader.card.pad.append("000000")
    with pytest.raises(ToolFailed, match="CKR_PIN_INCORRECT"):
        pkcs11_tool(reader.provider, "--list-objects", "--login")
    reader.card.pad.append(DEFAULT_PIN)
    assert "Private Key" in pkcs11_tool(reader.provider, "--list-objects", "--login")
    assert reader.card.user is not None
    assert (reader.card.user.presented, reader.card.user.left) == (2, 3)
