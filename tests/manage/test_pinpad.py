"""PINs that are typed on the reader: management asks for none, and none reaches this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.worker import spec
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, PinPad, Reader, furnished, inserted
from tests.parts.token.card.domain import Domain
from tests.parts.token.faulty import Action, Faulty, build
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE, SoftHsm

NEW_PIN = "271828"
ON_THE_READER = "on the reader"


@pytest.fixture
def pad(tmp_path: Path) -> PinPad:
    return PinPad(tmp_path)


@pytest.fixture
def reader(pad: PinPad) -> Iterator[Reader]:
    with inserted(furnished(), pad) as reader:
        yield reader


def test_opensc_has_the_pin_typed_on_the_reader(reader: Reader, pad: PinPad) -> None:
    """The pad is one that others know how to use, too."""
    assert "PIN pad present" in pkcs11_tool(reader.provider, "-L")
    pad.will_type(DEFAULT_PIN)
    assert "Private Key" in pkcs11_tool(reader.provider, "--list-objects", "--login")
    assert pad.left == []


def test_every_command_has_its_pin_typed_on_the_reader(
    reader: Reader, card: Managed, pad: PinPad, tmp_path: Path
) -> None:
    """By PKCS#11 (key, cert, data) and by the card's own commands (backup, restore, delete)."""
    user = reader.card.user
    assert user is not None
    reader.card.domain = Domain.of(0)
    (tmp_path / "note.txt").write_text("x")
    commands = (
        ("key", "new", "--label", "new"),
        ("key", "test", "new"),
        ("key", "rename", "new", "newer"),
        ("cert", "self-sign", "newer", "--email", "alice@example.org"),
        ("data", "write", "x", "note.txt"),
        ("data", "list", "--private"),
        ("key", "backup", "newer", "."),
        ("key", "delete", "newer", "--with-cert", "--yes"),
        ("key", "restore", "newer.wrapped"),
    )
    for count, words in enumerate(commands, 1):
        pad.will_type(DEFAULT_PIN)
        ran = card(*words)
        assert ran.status == 0, (words, ran.err)
        assert f"Type the PIN of “work” {ON_THE_READER}." in ran.err
        assert pad.left == []
        assert (user.presented, user.wrong) == (count, 0)
        assert not reader.card.logged_in


def test_a_new_pin_on_the_reader(reader: Reader, card: Managed, pad: PinPad) -> None:
    user = reader.card.user
    assert user is not None
    pad.will_type(DEFAULT_PIN, NEW_PIN, NEW_PIN)
    card.does("token", "pin")
    assert (user.value, user.presented) == (NEW_PIN.encode(), 1)
    pad.will_type(NEW_PIN, "111112", "111113")
    assert "the two new PINs differed" in card.fails("token", "pin")
    assert (user.value, user.presented) == (NEW_PIN.encode(), 1)
    pad.will_type("000000", "111112", "111112")
    assert "2 tries are left" in card.fails("token", "pin")
    assert (user.value, user.wrong) == (NEW_PIN.encode(), 1)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("cancel",), "the PIN was cancelled"),
        ((), "no PIN was typed"),
        (("1",), "too short or too long"),
    ],
)
def test_what_the_reader_says_instead(
    reader: Reader, card: Managed, pad: PinPad, typed: tuple[str, ...], said: str
) -> None:
    reader.card.domain = Domain.of(0)
    pad.will_type(*typed)
    assert f"{said} on the reader; nothing was tried" in card.fails("key", "backup", "ssh", ".")
    pad.will_type(*typed)
    assert f"{said} on the reader; nothing was tried" in card.fails("token", "pin")
    assert reader.card.user is not None
    assert reader.card.user.presented == 0
    assert len(reader.card.keys) == 3


def test_an_so_pin_has_letters_and_is_typed_here(reader: Reader, card: Managed) -> None:
    card.does("token", "unblock", secrets=(DEFAULT_SO_PIN, NEW_PIN))
    assert reader.card.user is not None
    assert reader.card.user.value == NEW_PIN.encode()


def test_another_module_with_a_pad(tmp_path: Path) -> None:
    """C_Login and C_SetPIN without a PIN (CKF_PROTECTED_AUTHENTICATION_PATH), once each."""
    token = SoftHsm.create(tmp_path / "softhsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ssh")
    faulty = Faulty.create(build(tmp_path), tmp_path / "state", MODULE, token.env)
    faulty.set(token_flags=spec.CKF_PROTECTED_AUTHENTICATION_PATH)
    managed = Managed(Provider(faulty.module, "", dict(faulty.env)), tmp_path)
    faulty.strike("C_Login", Action.RETURN, spec.CKR_PIN_INCORRECT)
    said = managed.fails("key", "test", "ssh")
    assert ON_THE_READER in said
    assert "the PIN is wrong" in said
    assert faulty.calls("C_Login") == 1
    faulty.strike("C_SetPIN", Action.RETURN, spec.CKR_OK)
    managed.does("token", "pin")
    assert (faulty.calls("C_Login"), faulty.calls("C_SetPIN")) == (1, 1)
