"""`hsmagent data …` on SoftHSM and on a card; pkcs11-tool reads what we wrote."""

from pathlib import Path

import pytest

from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool

PIN = "271828"
SO_PIN = "31415926"


@pytest.mark.parametrize("private", [(), ("--private",)])
def test_data_on_softhsm(soft: Managed, tmp_path: Path, private: tuple[str, ...]) -> None:
    soft.does("token", "init", "--label", "demo", secrets=(SO_PIN, PIN))
    secrets = (PIN,) if private else ()
    file = tmp_path / "note"
    file.write_text("something to keep\n")
    words = ("data", "write", "note", str(file), "--application", "test", *private)
    soft.does(*words, secrets=(PIN,))
    assert soft.does("data", "read", "note", *private, secrets=secrets) == file.read_text()
    shown = "note: 18 bytes, of test" + (", behind the PIN" if private else "")
    assert shown in soft.does("data", "list", *private, secrets=secrets)
    read = ["--token-label", "demo", "--read-object", "--type", "data", "--label", "note"]
    assert "something to keep" in pkcs11_tool(soft.provider, *read, pin=PIN)
    file.write_text("something else\n")
    ran = soft(*words, "--yes", secrets=(PIN,))
    assert (ran.status, "replaces “note”" in ran.err) == (0, True)
    assert soft.does("data", "read", "note", *private, secrets=secrets) == "something else\n"
    soft.does("data", "delete", "note", *private, "--yes", secrets=(PIN,))
    assert "no data" in soft.fails("data", "read", "note", *private, secrets=secrets, status=2)
    gone = soft.fails("data", "delete", "note", *private, "--yes", secrets=(PIN,), status=2)
    assert "no data" in gone


@pytest.mark.parametrize("private", [(), ("--private",)])
@pytest.mark.parametrize("size", [0, 1, 3000])
def test_the_first_data_of_a_card_can_be_deleted(
    blank: Reader, blank_card: Managed, tmp_path: Path, private: tuple[str, ...], size: int
) -> None:
    """Its file has the number 0, of which OpenSC may think that there is none."""
    words = ("token", "init", "--label", "work", "--no-backup")
    blank_card.does(*words, secrets=("0123456789abcdef", PIN))
    before = set(blank.card.files.content)
    (tmp_path / "note").write_bytes(b"x" * size)
    blank_card.does("data", "write", "note", "note", *private, secrets=(PIN,))
    added = set(blank.card.files.content) - before
    assert {each & 0xFF for each in added} == {0}
    blank_card.does("data", "delete", "note", *private, "--yes", secrets=(PIN,))
    assert set(blank.card.files.content) == before


def test_data_on_a_card(reader: Reader, card: Managed, tmp_path: Path) -> None:
    assert card.does("data", "read", "note") == "for everyone"
    assert "no data" in card.fails("data", "read", "secret", status=2)
    secret = ("data", "read", "secret", "--private")
    assert card.does(*secret, secrets=(DEFAULT_PIN,)) == "for the owner"
    file = tmp_path / "big"
    file.write_bytes(b"x" * 3000)
    card.does("data", "write", "big", str(file), secrets=(DEFAULT_PIN,))
    assert card.does("data", "read", "big") == "x" * 3000
    card.does("data", "delete", "note", "--yes", secrets=(DEFAULT_PIN,))
    assert "note" not in card.does("data", "list")
    assert not reader.card.logged_in
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0
