"""`hsmagent key …` on a card through OpenSC and pcscd, and on SoftHSM; pkcs11-tool as witness."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from hsmagent.schsm.apdu import INS
from hsmagent.schsm.card import END_ENTITY, file_id
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.card.domain import Domain
from tests.parts.token.card.furnished import AUTHORITY, BRAINPOOL, P256, RSA
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool

PIN = "271828"
SO_PIN = "31415926"


@pytest.fixture
def made(soft: Managed) -> Managed:
    """Give SoftHSM with an empty token."""
    soft.does("token", "init", "--label", "demo", secrets=(SO_PIN, PIN))
    return soft


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "ed25519", "brainpool256"])
def test_a_key_is_made_and_tried(made: Managed, kind: str) -> None:
    out = made.does("key", "new", kind, "--for", "ssh,mail", secrets=(PIN,))
    if kind != "brainpool256":
        load_ssh_public_key(out.encode())
        assert out.endswith(" ssh-mail\n")
    tried = made.does("key", "test", "ssh-mail", secrets=(PIN,))
    assert "failed" not in tried
    assert "sign" in tried
    assert ("decrypt" in tried) is kind.startswith("rsa")
    assert ("ECDH" in tried) is (kind[0] in "pb")
    listed = pkcs11_tool(made.provider, "--token-label", "demo", "-O", pin=PIN)
    assert "Private Key Object" in listed
    assert "ssh-mail" in listed


def test_what_cannot_be_is_refused_without_a_pin(made: Managed) -> None:
    assert "no kind of key" in made.fails("key", "new", "p42", secrets=(PIN,), status=2)
    made.does("key", "new", secrets=(PIN,))
    assert "already" in made.fails("key", "new", secrets=(PIN,), status=2)
    assert "no key is named" in made.fails("key", "test", "nobody", secrets=(PIN,), status=2)
    assert "the PIN is wrong" in made.fails("key", "test", "ssh", secrets=("000000",))


def test_a_key_is_renamed_and_deleted(made: Managed) -> None:
    made.does("key", "new", secrets=(PIN,))
    made.does("key", "new", "rsa2048", "--for", "mail", secrets=(PIN,))
    assert "already" in made.fails("key", "rename", "ssh", "mail", secrets=(PIN,), status=2)
    made.does("key", "rename", "ssh", "home", secrets=(PIN,))
    assert "home" in pkcs11_tool(made.provider, "--token-label", "demo", "-O", pin=PIN)
    assert "terminal" in made.fails("key", "delete", "home", secrets=(PIN,))
    made.does("key", "delete", "home", "--yes", secrets=(PIN,))
    listed = pkcs11_tool(made.provider, "--token-label", "demo", "-O", pin=PIN)
    assert "home" not in listed
    assert "mail" in listed


# -- a card ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_a_key_is_made_on_a_card(reader: Reader, card: Managed, kind: str) -> None:
    user = reader.card.user
    assert user is not None
    out = card.does("key", "new", kind, "--label", "new", secrets=(DEFAULT_PIN,))
    load_ssh_public_key(out.encode())
    assert len(reader.card.keys) == 4
    assert not reader.card.logged_in
    assert user.wrong == 0
    assert "failed" not in card.does("key", "test", "new", secrets=(DEFAULT_PIN,))
    assert "new" in pkcs11_tool(reader.provider, "-O")
    said = card.fails("key", "new", "p521", "--label", "x", secrets=(DEFAULT_PIN,))
    assert "“work” did not make the p521 key: C_GenerateKeyPair" in said
    assert "does not make ed25519" in card.fails(
        "key", "new", "ed25519", "--label", "x", secrets=(DEFAULT_PIN,), status=2
    )


@pytest.mark.parametrize("name", ["ssh", "mail", "old"])
def test_the_keys_of_a_card_are_tried(card: Managed, name: str) -> None:
    assert "failed" not in card.does("key", "test", name, secrets=(DEFAULT_PIN,))


def test_a_key_leaves_nothing_behind_on_a_card(reader: Reader, card: Managed) -> None:
    said = card.fails("key", "delete", "mail", "--yes", secrets=(DEFAULT_PIN,), status=2)
    assert "--with-cert" in said
    words = ("key", "delete", "mail", "--with-cert", "--yes")
    assert "2 tries are left" in card.fails(*words, secrets=("000000",))
    card.does(*words, secrets=(DEFAULT_PIN,))
    assert set(reader.card.keys) == {P256, BRAINPOOL}
    assert file_id(END_ENTITY, RSA) not in reader.card.files.content
    card.does("key", "delete", "old", "--yes", secrets=(DEFAULT_PIN,))
    assert set(reader.card.keys) == {P256}
    assert not reader.card.logged_in


def test_it_is_said_what_a_deletion_loses(reader: Reader, card: Managed, tmp_path: Path) -> None:
    reader.card.domain = Domain.of(0)
    words = ("key", "delete", "mail", "--with-cert", "--yes")
    said = card.fails(*words, secrets=("000000",))
    assert "Mail and files encrypted for it, if there are any, can be read no more." in said
    assert "No backup of it was made here." in said
    assert "Its certificate goes with it." in said
    assert f"The certificates of its authorities stay: {AUTHORITY}." in said
    said = card.fails("key", "delete", "old", "--yes", secrets=("000000",))
    assert "certificate" not in said
    card("token", "unblock", secrets=(DEFAULT_SO_PIN, "271828"))
    card.does("key", "backup", "mail", ".", secrets=("271828",))
    kcv = reader.card.domain.dkek.kcv.hex().upper()
    noted = tmp_path / "state" / "hsmagent" / "backups.jsonl"
    assert stat.S_IMODE(noted.stat().st_mode) == 0o600
    file = tmp_path / "mail.wrapped"
    said = card.fails(*words, secrets=("000000",))
    assert f"is in {file}, for a card whose DKEK has the check value {kcv}." in said
    # Another key's backup in its place is none of it.
    card.does("key", "backup", "ssh", ".", secrets=("271828",))
    file.unlink()
    (tmp_path / "ssh.wrapped").rename(file)
    noted.write_bytes(b"[1]\n{\n" + noted.read_bytes())
    ran = card(*words, secrets=("271828",))
    assert f"is no longer in {file}" in ran.err
    assert ran.status == 0


@pytest.mark.parametrize("name", ["ssh", "old"])
@pytest.mark.parametrize("label", ["longer than before", "b"])
def test_a_key_of_a_card_is_renamed(reader: Reader, card: Managed, name: str, label: str) -> None:
    """With a certificate and without; where the label is shorter, its file keeps the old end."""
    reader.card.domain = Domain.of(0)
    card.does("key", "rename", name, label, secrets=(DEFAULT_PIN,))
    listed = pkcs11_tool(reader.provider, "-O", pin=DEFAULT_PIN)
    assert listed.count(f"label:      {label}\n") == (3 if name == "ssh" else 2)
    card.does("key", "backup", label, ".", secrets=(DEFAULT_PIN,))
    card.does("key", "delete", label, "--with-cert", "--yes", secrets=(DEFAULT_PIN,))
    (file,) = card.folder.glob("*.wrapped")
    card.does("key", "restore", str(file), secrets=(DEFAULT_PIN,))
    assert "failed" not in card.does("key", "test", label, secrets=(DEFAULT_PIN,))


def test_the_last_try_is_not_spent(reader: Reader, card: Managed) -> None:
    user = reader.card.user
    assert user is not None
    user.left = 1
    assert "--last-try" in card.fails("key", "test", "ssh", secrets=(DEFAULT_PIN,))
    assert user.presented == 0
    user.left = 0
    said = card.fails("key", "test", "ssh", secrets=(DEFAULT_PIN,))
    assert "hsmagent token unblock" in said
    assert user.presented == 0
    card.does("token", "unblock", secrets=(DEFAULT_SO_PIN, "271828"))
    assert INS.SIGN not in reader.card.knobs.count()


def test_a_card_that_is_torn_out(reader: Reader, card: Managed) -> None:
    reader.card.knobs.unplug_at = {INS.GENERATE_KEY_PAIR: 1}
    said = card.fails("key", "new", "--label", "x", secrets=(DEFAULT_PIN,))
    assert "removed" in said or "failed" in said or "C_GenerateKeyPair" in said
    assert len(reader.card.keys) == 3
