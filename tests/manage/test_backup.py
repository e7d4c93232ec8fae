"""Shares and backups: ours by sc-hsm-tool and its by us, on the virtual card."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsmagent.schsm import dkek
from hsmagent.schsm.card import END_ENTITY, PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, file_id
from hsmagent.schsm.dkek import combine
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.card.domain import Domain
from tests.parts.token.card.furnished import BRAINPOOL, P256, RSA
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool, run_tool

PASSWORD = "correct horse"
PASSPHRASE = "battery staple"
NEW_SO = "fedcba9876543210"


def tool(reader: Reader, *words: str) -> str:
    return run_tool(reader.provider, "sc-hsm-tool", *words)


def init_args(shares: int) -> tuple[str, ...]:
    return ("token", "init", "work", "--yes", "--backup-shares", str(shares))


def remove(reader: Reader, number: int) -> None:
    """Take a key off the card, as if it had never been there."""
    del reader.card.keys[number]
    for high in (PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, END_ENTITY):
        reader.card.files.content.pop(file_id(high, number), None)


def test_a_share_is_made_and_imported(reader: Reader, card: Managed, tmp_path: Path) -> None:
    card.does("share", "make", "share.pbe", secrets=(PASSWORD,))
    file = tmp_path / "share.pbe"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = card.fails("share", "make", "share.pbe", secrets=(PASSWORD,), status=2)
    assert "there already" in said
    assert "8 characters" in card.fails("share", "make", "s", secrets=("short",), status=2)
    said = card.fails("share", "import", "share.pbe", secrets=(PASSWORD,), status=2)
    assert "without a DKEK" in said
    share = dkek.decrypt_share(file.read_bytes(), PASSWORD.encode(), lambda _: None, card.rounds)
    kcv = combine([share]).kcv.hex().upper()
    reader.card.domain = Domain.of(1)
    wrong = "0011223344556677"
    said = card.fails("share", "import", "share.pbe", "--expect", wrong, secrets=(PASSWORD,))
    assert "the card was not touched" in said
    said = card.fails("share", "import", "share.pbe", secrets=("wrong password",))
    assert "does not open" in said
    said = card.fails("share", "import", "share.pbe", "share.pbe", secrets=(PASSWORD,), status=2)
    assert "1 more DKEK" in said
    assert reader.card.domain.missing == 1
    ran = card("share", "import", "share.pbe", "--expect", kcv, secrets=(PASSWORD,))
    assert ran.status == 0, ran.err
    assert f"Check value: {kcv}" in ran.err
    assert kcv in card.does("token", "info")
    said = card.fails("share", "import", "share.pbe", secrets=(PASSWORD,), status=2)
    assert "no more DKEK shares" in said


@pytest.mark.timeout(600)
def test_shares_of_ours_and_of_the_tool_are_the_same(
    reader: Reader, card: Managed, tmp_path: Path
) -> None:
    real = replace(card, rounds=0)
    tools, ours = tmp_path / "tool.pbe", tmp_path / "ours.pbe"
    tool(reader, "--create-dkek-share", str(tools), "--password", PASSWORD)
    real.does("share", "make", ours.name, secrets=(PASSWORD,))
    reader.card.domain = Domain.of(2)
    real.does("share", "import", tools.name, secrets=(PASSWORD,))
    said = tool(reader, "--import-dkek-share", str(ours), "--password", PASSWORD)
    kcv = reader.card.domain.dkek.kcv.hex().upper()
    assert kcv in said.replace(":", "").upper()
    shares = [
        dkek.decrypt_share(file.read_bytes(), PASSWORD.encode(), lambda _: None)
        for file in (tools, ours)
    ]
    assert combine(shares).kcv.hex().upper() == kcv


def test_a_password_in_parts(reader: Reader, card: Managed) -> None:
    made = card("share", "make", "share.pbe", "--split", "2/3", secrets=("unused",))
    assert made.status == 0, made.err
    lines = [line.split()[-1] for line in made.out.splitlines() if line.startswith("  ")]
    parts = [lines[at : at + 3] for at in range(0, 9, 3)]
    assert len({part[0] for part in parts}) == 1
    (prime, *first), (_, *last) = parts[0], parts[2]
    reader.card.domain = Domain.of(1)
    words = ("share", "import", "share.pbe", "--parts", "2")
    ran = card(*words, secrets=(prime, *first, *last))
    assert ran.status == 0, ran.err


def with_dkek(reader: Reader, card: Managed) -> None:
    """Give the card, keys and all, the DKEK of a share that lies in share.pbe."""
    card.does("share", "make", "share.pbe", secrets=(PASSWORD,))
    reader.card.domain = Domain.of(1)
    card.does("share", "import", "share.pbe", secrets=(PASSWORD,))


def test_keys_leave_and_come_back(reader: Reader, card: Managed, tmp_path: Path) -> None:
    with_dkek(reader, card)
    kept = dict(reader.card.keys)
    words = ("key", "backup", "ssh", "mail", "old", ".")
    assert "2 tries are left" in card.fails(*words, secrets=("000000",))
    card.does(*words, secrets=(DEFAULT_PIN,))
    backups = [tmp_path / f"{name}.wrapped" for name in ("ssh", "mail", "old")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in backups] == [0o600] * 3
    assert "there already" in card.fails(*words, secrets=(DEFAULT_PIN,), status=2)
    names = [file.name for file in backups]
    said = card.does("key", "verify-backup", *names)
    assert "Only its form" in said
    said = card.does("key", "verify-backup", *names, "--share", "share.pbe", secrets=(PASSWORD,))
    assert said.count("the key is that of its certificate") == 3
    # sc-hsm-tool reads one, we the others.
    for number in (P256, RSA, BRAINPOOL):
        remove(reader, number)
    unwrap = ("--unwrap-key", str(backups[0]), "--key-reference", "1", "--pin", DEFAULT_PIN)
    tool(reader, *unwrap)
    card.does("key", "restore", *names[1:], secrets=(DEFAULT_PIN,))
    for number, key in kept.items():
        assert reader.card.keys[number].private_numbers() == key.private_numbers()
    assert "already" in card.fails("key", "restore", *names, secrets=(DEFAULT_PIN,), status=2)
    listed = pkcs11_tool(reader.provider, "-O", pin=DEFAULT_PIN)
    assert listed.count("Private Key Object") == 3
    assert listed.count("Certificate Object") == 3
    for name in ("ssh", "mail", "old"):
        assert "failed" not in card.does("key", "test", name, secrets=(DEFAULT_PIN,))
    assert not reader.card.logged_in


def test_a_backup_of_the_tool_goes_where_there_is_room(
    reader: Reader, card: Managed, tmp_path: Path
) -> None:
    with_dkek(reader, card)
    file = tmp_path / "tool.bin"
    tool(reader, "--wrap-key", str(file), "--key-reference", "1", "--pin", DEFAULT_PIN)
    key = reader.card.keys[P256]
    remove(reader, P256)
    other = ec.generate_private_key(ec.SECP256R1())
    reader.card.add_key(other, "other", P256)
    content = reader.card.files.content
    where = file_id(PRIVATE_KEY_DESCRIPTION, P256)
    content[where] = content[where].replace(b"\x04\x01\x01\x03", b"\x04\x01\x63\x03")
    card.does("key", "restore", "tool.bin", secrets=(DEFAULT_PIN,))
    assert reader.card.keys[4].private_numbers() == key.private_numbers()
    assert reader.card.keys[P256] is other
    assert "failed" not in card.does("key", "test", "ssh", secrets=(DEFAULT_PIN,))


def test_what_does_not_fit_is_refused_before_the_pin(
    reader: Reader, card: Managed, tmp_path: Path
) -> None:
    said = card.fails("key", "backup", "ssh", ".", secrets=(DEFAULT_PIN,), status=2)
    assert "without a DKEK" in said
    with_dkek(reader, card)
    card.does("key", "backup", "ssh", ".", secrets=(DEFAULT_PIN,))
    user = reader.card.user
    assert user is not None
    presented = user.presented
    reader.card.domain = Domain(1, 0, combine([os.urandom(32)]))
    remove(reader, P256)
    said = card.fails("key", "restore", "ssh.wrapped", secrets=(DEFAULT_PIN,), status=2)
    assert "needs the DKEK with the check value" in said
    reader.card.domain = Domain.of(2)
    said = card.fails("key", "restore", "ssh.wrapped", secrets=(DEFAULT_PIN,), status=2)
    assert "waits for 2 DKEK shares" in said
    assert user.presented == presented
    damaged = bytearray((tmp_path / "ssh.wrapped").read_bytes())
    damaged[60] ^= 1
    (tmp_path / "damaged.wrapped").write_bytes(damaged)
    words = ("key", "verify-backup", "damaged.wrapped", "--share", "share.pbe")
    assert "damaged" in card.fails(*words, secrets=(PASSWORD,))
    (tmp_path / "no.wrapped").write_bytes(b"no")
    assert "no backup of a key" in card.fails("key", "verify-backup", "no.wrapped", status=2)


@pytest.mark.parametrize("name", ["ssh", "mail"])
def test_a_key_is_taken_out_of_a_backup(
    reader: Reader, card: Managed, tmp_path: Path, name: str
) -> None:
    with_dkek(reader, card)
    card.does("key", "backup", name, ".", secrets=(DEFAULT_PIN,))
    words = (
        "key",
        "export",
        f"{name}.wrapped",
        "--share",
        "share.pbe",
        "--out",
        "out.pem",
        "--yes",
    )
    assert "10 characters" in card.fails(*words, secrets=(PASSWORD, "short"), status=2)
    card.does(*words, secrets=(PASSWORD, PASSPHRASE))
    file = tmp_path / "out.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    private = load_pem_private_key(file.read_bytes(), PASSPHRASE.encode())
    number = P256 if name == "ssh" else RSA
    public = reader.card.keys[number].public_key().public_numbers()
    assert private.public_key().public_numbers() == public  # type: ignore[union-attr]


def test_another_card_gets_the_keys(reader: Reader, card: Managed) -> None:
    with_dkek(reader, card)
    kept = reader.card.keys[RSA]
    card.does("key", "backup", "mail", ".", secrets=(DEFAULT_PIN,))
    kcv = reader.card.domain.dkek.kcv.hex() if reader.card.domain else ""
    pins = (DEFAULT_SO_PIN, NEW_SO, "271828")
    card.does(*init_args(1), secrets=pins)
    assert "waits for 1" in card.fails("key", "restore", "mail.wrapped", secrets=("1",), status=2)
    (card.folder / "x").write_text("x")
    for wrong, why in (
        ("x", "x is no backup"),
        ("nothing", "16 hexadecimal digits, or the backup"),
    ):
        words = ("share", "import", "share.pbe", "--expect", wrong)
        assert why in card.fails(*words, secrets=(PASSWORD,), status=2)
    card.does("share", "import", "share.pbe", "--expect", "mail.wrapped", secrets=(PASSWORD,))
    assert reader.card.domain is not None
    assert reader.card.domain.dkek.kcv.hex() == kcv
    card.does("key", "restore", "mail.wrapped", secrets=("271828",))
    assert reader.card.keys[RSA].private_numbers() == kept.private_numbers()
    assert "failed" not in card.does("key", "test", "mail", secrets=("271828",))
