"""`hsmagent token …` on a card through OpenSC and pcscd, and on SoftHSM."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader, furnished
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool, run_tool
from tests.parts.token.provider import find_module
from tests.parts.token.swtpm import blank_tpm

SO_PIN = "0123456789abcdef"
PIN = "271828"
SOFT_SO_PIN = "31415926"


def test_a_blank_card_becomes_usable(blank: Reader, blank_card: Managed) -> None:
    said = blank_card.does("token", "info")
    assert "it is blank" in said
    blank_card.does(
        *("token", "init", "--label", "work", "--backup-shares", "1"), secrets=(SO_PIN, PIN)
    )
    card = blank.card
    assert card.user is not None
    assert card.so is not None
    assert card.user.value == PIN.encode()
    assert card.so.value == bytes.fromhex(SO_PIN)
    assert (card.user.presented, card.user.wrong) == (1, 0)
    assert card.domain is not None
    assert card.domain.shares == 1
    assert not card.logged_in
    assert "token label        : work" in pkcs11_tool(blank.provider, "-L")
    said = blank_card.does("token", "info", "work")
    assert "1 of 1 DKEK shares are missing" in said
    assert "set; 3 tries left" in said
    assert "rsa2048" in said


def test_a_card_without_backup(blank: Reader, blank_card: Managed) -> None:
    ran = blank_card("token", "init", "--label", "x", "--no-backup", secrets=(SO_PIN, PIN))
    assert "can never be backed up" in ran.err
    assert blank.card.domain is None
    assert "not possible" in blank_card.does("token", "info")


@pytest.mark.parametrize(
    ("so_pin", "pin", "said"),
    [
        ("12345678", PIN, "16 hexadecimal digits"),
        ("0123456789abcdeg", PIN, "16 hexadecimal digits"),
        (DEFAULT_SO_PIN, PIN, "the factory's"),
        (SO_PIN, "12345", "6 to 15"),
        (SO_PIN, "1" * 16, "6 to 15"),
        (SO_PIN, DEFAULT_PIN, "thief"),
        (SO_PIN, f"{PIN}\x0c", "a control character"),
        (SO_PIN, f"{PIN}\x7f", "a control character"),
        (f"{SO_PIN}\x1b[D", PIN, "a control character"),
    ],
)
def test_what_would_be_bad_is_refused_before_the_card_hears_of_it(
    blank: Reader, blank_card: Managed, so_pin: str, pin: str, said: str
) -> None:
    words = ("token", "init", "--label", "x", "--no-backup")
    assert said in blank_card.fails(*words, secrets=(so_pin, pin))
    assert blank.card.so is None


def test_the_decision_about_backup_must_be_made(blank: Reader, blank_card: Managed) -> None:
    said = blank_card.fails("token", "init", "--label", "x", secrets=(SO_PIN, PIN), status=2)
    assert "--backup-shares" in said or "backed up" in said
    assert blank.card.so is None


def test_a_card_in_use_is_erased_only_by_its_so_pin(reader: Reader, card: Managed) -> None:
    words = ("token", "init", "--label", "new", "--backup-shares", "2", "--yes")
    new = ("fedcba9876543210", PIN)
    said = card.fails(*words, secrets=(SO_PIN, PIN))
    assert "the SO-PIN is wrong; nothing was erased; 14 tries are left" in said
    assert "On it: ssh, mail, old" in said
    assert reader.card.so is not None
    assert (reader.card.so.presented, reader.card.so.wrong, reader.card.so.left) == (1, 1, 14)
    assert reader.card.keys
    card.does(*words, secrets=(DEFAULT_SO_PIN, *new))
    assert not reader.card.keys
    assert reader.card.so.value == bytes.fromhex(new[0])
    assert reader.card.so.wrong == 1
    assert "2 of 2 DKEK shares are missing" in card.does("token", "info", "new")


def test_the_last_try_of_an_so_pin_is_not_spent(reader: Reader, card: Managed) -> None:
    assert reader.card.so is not None
    reader.card.so.left = 1
    words = ("token", "init", "--no-backup", "--yes")
    assert "--last-try" in card.fails(*words, secrets=(DEFAULT_SO_PIN, PIN))
    assert "--last-try" in card.fails("token", "unblock", secrets=(DEFAULT_SO_PIN, PIN))
    assert reader.card.so.presented == 0
    card.does("token", "unblock", "--last-try", secrets=(DEFAULT_SO_PIN, PIN))
    assert reader.card.so.left == 15


def test_a_new_pin_for_the_old_one(reader: Reader, card: Managed) -> None:
    user = reader.card.user
    assert user is not None
    assert "2 tries are left" in card.fails("token", "pin", "work", secrets=("000000", PIN))
    assert (user.presented, user.left) == (1, 2)
    card.does("token", "pin", "work", secrets=(DEFAULT_PIN, PIN))
    assert user.value == PIN.encode()
    assert user.presented == 3  # the wrong one, the old one, and the new one to see that it is so
    assert not reader.card.logged_in
    assert len(reader.card.keys) == 3


def test_a_control_character_is_refused_in_a_new_pin_alone(soft: Managed) -> None:
    """A stray Ctrl-L would be part of the PIN; who has such a PIN must be able to type it."""
    init, odd = ("token", "init", "--label", "x"), f"{PIN}\x0c"
    for secrets in ((SOFT_SO_PIN, odd), (f"\t{SOFT_SO_PIN}", PIN)):
        said = soft.fails(*init, secrets=secrets)
        assert "a control character" in said
        assert "nothing was changed" in said
    soft.does(*init, secrets=(SOFT_SO_PIN, PIN))
    for command in ("pin", "so-pin"):
        old = PIN if command == "pin" else SOFT_SO_PIN
        assert "a control character" in soft.fails("token", command, secrets=(old, odd))
    slot = ("--login", "--pin", PIN, "--change-pin", "--new-pin", odd)
    pkcs11_tool(soft.provider, *slot)
    soft.does("token", "pin", secrets=(odd, PIN))


def test_a_blocked_pin_is_unblocked(reader: Reader, card: Managed) -> None:
    user = reader.card.user
    assert user is not None
    user.left = 0
    assert "token unblock" in card.fails("token", "pin", secrets=(DEFAULT_PIN, PIN))
    assert "the SO-PIN is wrong; 14 tries are left" in card.fails(
        "token", "unblock", secrets=(SO_PIN, PIN)
    )
    card.does("token", "unblock", secrets=(DEFAULT_SO_PIN, PIN))
    assert (user.value, user.left) == (PIN.encode(), 3)
    assert len(reader.card.keys) == 3


def test_a_new_so_pin(reader: Reader, card: Managed) -> None:
    so = reader.card.so
    assert so is not None
    card.does("token", "so-pin", secrets=(DEFAULT_SO_PIN, SO_PIN))
    assert so.value == bytes.fromhex(SO_PIN)
    run_tool(reader.provider, "opensc-tool", "-n")


def test_two_cards_are_told_apart(reader: Reader, card: Managed) -> None:
    said = card.fails("token", "info", "nobody", status=2)
    assert "work (DENK0100001)" in said
    assert "DENK0100001" in card.does("token", "info", "DENK0100001")
    reader.plug(furnished("DENK0200002", "other"))
    assert "other" in card.does("token", "info")


# -- SoftHSM -----------------------------------------------------------------------------------


def test_softhsm_from_nothing(soft: Managed) -> None:
    assert "it is blank" in soft.does("token", "info")
    for blank in (("key", "new"), ("token", "pin"), ("data", "list", "--private")):
        said = soft.fails(*blank, status=2)
        assert "libsofthsm2.so is blank; `hsmagent token init` makes it usable" in said
    soft.does("token", "init", "--label", "demo", secrets=(SOFT_SO_PIN, PIN))
    listed = pkcs11_tool(soft.provider, "-L")
    assert "demo" in listed
    assert "ed25519" in soft.does("token", "info", "demo")
    said = soft.fails("token", "init", "--label", "demo", secrets=(SOFT_SO_PIN, PIN), status=2)
    assert "already" in said
    assert "wrong" in soft.fails("token", "pin", "demo", secrets=("000000", PIN + "1"))
    soft.does("token", "pin", "demo", secrets=(PIN, PIN + "1"))
    soft.does("token", "unblock", "demo", secrets=(SOFT_SO_PIN, PIN + "2"))
    soft.does("token", "so-pin", "demo", secrets=(SOFT_SO_PIN, "27182818"))
    soft.does("token", "unblock", "demo", secrets=("27182818", PIN))
    for verb in ("unblock", "so-pin", "init"):
        yes = ("--yes",) if verb == "init" else ()
        said = soft.fails("token", verb, "demo", *yes, secrets=(SOFT_SO_PIN, "31415927"))
        assert "the SO-PIN is wrong" in said
    pkcs11_tool(soft.provider, "--token-label", "demo", "-O", pin=PIN)
    words = ("token", "init", "demo", "--label", "again", "--yes")
    assert "wrong" in soft.fails(*words, secrets=(SOFT_SO_PIN, PIN))
    soft.does(*words, secrets=("27182818", PIN))
    assert "again" in soft.does("token", "info", "again")


@pytest.mark.parametrize("closed", ["softhsm2.conf", "tokens"])
def test_a_module_whose_files_are_closed_to_us(soft: Managed, closed: str) -> None:
    path = soft.folder / "softhsm" / closed
    mode = path.stat().st_mode
    path.chmod(0o050)
    try:
        said = soft.fails("token", "init", "--label", "demo", secrets=(SOFT_SO_PIN, PIN))
    finally:
        path.chmod(mode)
    assert f"is left out: {path} cannot be read: join its group" in said
    assert "no token is present" in said


@pytest.mark.parametrize("there", [True, False])
def test_of_a_module_that_nobody_named(soft: Managed, there: bool) -> None:
    """That it does not work is said only where no token is found."""
    soft.does("token", "init", "--label", "demo", secrets=(SOFT_SO_PIN, PIN))
    environment = {**soft.environment, **soft.provider.environment}
    (soft.folder / "hsmagent" / "config.toml").write_text("")
    folder = soft.folder / "pkcs11" / "modules"
    folder.mkdir(parents=True)
    (folder / "broken.module").write_text(f"module: {find_module('libc.so.6')}\n")
    command = [sys.executable, "-m", "hsmagent", "token", "info", "demo"]
    if not there:
        (soft.folder / "softhsm" / "softhsm2.conf").chmod(0)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is there
    assert ("libc.so.6 is left out" in done.stderr) is not there


def test_a_label_is_needed(soft: Managed) -> None:
    assert "--label" in soft.fails("token", "init", secrets=(SOFT_SO_PIN, PIN), status=2)
    long = "ä" * 17
    assert "32 bytes" in soft.fails(
        "token", "init", "--label", long, secrets=(SOFT_SO_PIN, PIN), status=2
    )


# -- a TPM -------------------------------------------------------------------------------------


def test_a_tpm(tmp_path: Path) -> None:
    with blank_tpm() as provider:
        tpm = Managed(provider, tmp_path)
        tpm.does("token", "init", "--label", "tpm", secrets=(SOFT_SO_PIN, PIN))
        run_tool(provider, "tpm2_flushcontext", "--transient-object")
        said = tpm.fails("token", "init", "tpm", "--yes", secrets=(SOFT_SO_PIN, PIN), status=2)
        assert "cannot be initialised again" in said
        assert "wrong" in tpm.fails("token", "pin", "tpm", secrets=("000000", PIN + "1"))
        tpm.does("token", "pin", "tpm", secrets=(PIN, PIN + "1"))
        run_tool(provider, "tpm2_flushcontext", "--transient-object")
        tpm.does("key", "new", "p256", "--token", "tpm", secrets=(PIN + "1",))
        run_tool(provider, "tpm2_flushcontext", "--transient-object")
        words = ("cert", "self-sign", "ssh", "--email", "alice@example.org")
        pem = tpm.does(*words, secrets=(PIN + "1",))
        assert tpm.does("cert", "export", "ssh") == pem
        (tmp_path / "note").write_text("x")
        said = tpm.fails("data", "write", "note", "note", secrets=(PIN + "1",))
        assert "“tpm” does not keep this data; perhaps it does behind its PIN: --private" in said
        run_tool(provider, "tpm2_flushcontext", "--transient-object")
        tpm.does("data", "write", "note", "note", "--private", secrets=(PIN + "1",))
        big = ("key", "new", "rsa4096", "--label", "big", "--token", "tpm")
        said = tpm.fails(*big, secrets=(PIN + "1",), status=2)
        assert "does not make rsa4096" in said


def test_a_tpm_does_the_rest(tmp_path: Path) -> None:
    """Every command that a TPM can carry out; each leaves keys loaded, as nobody manages them."""
    with blank_tpm() as provider:
        tpm = Managed(provider, tmp_path)
        (tmp_path / "note").write_text("something to keep")
        pin, new, so = (PIN,), (SOFT_SO_PIN, PIN), (SOFT_SO_PIN, "27182818")
        for words, secrets in (
            (("token", "init", "--label", "tpm"), new),
            (("key", "new", "p256", "--label", "ssh", "--token", "tpm"), pin),
            (("key", "test", "ssh"), pin),
            (("key", "rename", "ssh", "mail"), pin),
            (("cert", "request", "mail", "--email", "alice@example.org"), pin),
            (("cert", "self-sign", "mail", "--email", "alice@example.org"), pin),
            (("cert", "delete", "mail", "--yes"), pin),
            (("key", "test", "mail"), pin),
            (("key", "delete", "mail", "--yes"), pin),
            (("data", "write", "note", "note", "--private", "--token", "tpm"), pin),
            (("data", "list", "tpm", "--private"), pin),
            (("data", "read", "note", "--private", "--token", "tpm"), pin),
            (("data", "delete", "note", "--private", "--yes", "--token", "tpm"), pin),
            (("token", "unblock", "tpm"), new),
            (("token", "so-pin", "tpm"), so),
            (("token", "unblock", "tpm"), (so[1], PIN)),
        ):
            out = tpm.does(*words, secrets=secrets)
            assert "failed" not in out
            if words[:2] == ("data", "read"):
                assert out == "something to keep"
            run_tool(provider, "tpm2_flushcontext", "--transient-object")
        assert "no key is named" in tpm.fails("key", "test", "mail", status=2)
