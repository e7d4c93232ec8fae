from typing import Any

import pytest

from hsmagent.cli import glance, show
from hsmagent.control.client import NONE_PRESENT

TOKEN: dict[str, Any] = {
    "label": "work",
    "serial": "1234",
    "model": "SoftHSM v2",
    "module": "/usr/lib/softhsm/libsofthsm2.so",
    "present": True,
    "login_required": True,
    "logged_in": True,
    "pin_state": "ok",
    "pin_pad": False,
    "idle_left": 899.0,
    "max_left": 28799.0,
    "keys": 3,
    "last_error": "",
    "notes": [],
}


def test_a_token_is_a_block() -> None:
    assert show.status({"tokens": [TOKEN], "modules": []}) == (
        "work\n"
        "  login   unlocked, 14 min 59 s left if unused, 7 h 59 min at most\n"
        "  PIN     ok\n"
        "  keys    3\n"
        "  model   SoftHSM v2 1234\n"
        "  module  /usr/lib/softhsm/libsofthsm2.so\n"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logged_in": False}, "locked"),
        ({"present": False}, "not present"),
        ({"login_required": False}, "not needed"),
        ({"max_left": 60.0}, "unlocked, 1 min left"),
        ({"idle_left": None}, "unlocked"),
    ],
)
def test_a_login_in_words(change: dict[str, Any], words: str) -> None:
    assert show.login(TOKEN | change) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert show.span(seconds) == words


def test_trouble_is_told() -> None:
    shown = show.status(
        {
            "tokens": [
                TOKEN
                | {
                    "pin_state": "final-try",
                    "pin_pad": True,
                    "last_error": "gone",
                    "notes": ["odd"],
                }
            ],
            "modules": [
                {"path": "/m.so", "error": "cannot be loaded", "notes": []},
                {"path": "/n", "error": "", "notes": []},
                {"path": "/o.so", "error": "The module /o.so does not start.", "notes": []},
                {"path": "/p.so", "error": "", "notes": ["slot 1 is odd: mend it"]},
            ],
        }
    )
    assert "PIN     ONE TRY LEFT (PIN pad)" in shown
    assert "trouble gone" in shown
    assert "note    odd" in shown
    assert "\nmodule /m.so: cannot be loaded\n" in shown
    assert "\nThe module /o.so does not start.\n" in shown
    assert "/n" not in shown
    assert "\nmodule /p.so: slot 1 is odd: mend it\n" in shown


def test_nothing_is_said_plainly() -> None:
    assert show.status({"tokens": [], "modules": []}) == f"{NONE_PRESENT}\n"
    assert show.keys({"keys": [], "notes": []}).startswith("no keys")
    assert show.keys({"keys": [], "notes": ["odd"]}).endswith("\nNotes:\n  odd\n")
    blank = {"path": "/m.so", "error": "", "notes": ["a blank one"]}
    assert show.status({"tokens": [], "modules": [blank]}) == (
        f"{NONE_PRESENT}\n\nmodule /m.so: a blank one\n"
    )


def test_of_a_module_that_nobody_named_the_doctor_tells() -> None:
    tpm = {"path": "/tpm.so", "error": "there is no TPM", "notes": [], "named": False}
    for layout in (show.status, glance.status):
        assert layout({"tokens": [], "modules": [tpm]}) == f"{NONE_PRESENT}\n"
        assert "no TPM" not in layout({"tokens": [TOKEN], "modules": [tpm]})
        assert "no TPM" in layout({"tokens": [TOKEN], "modules": [tpm | {"named": True}]})
        crashed = tpm | {"path": TOKEN["module"], "error": "it crashed"}
        assert "it crashed" in layout({"tokens": [TOKEN], "modules": [crashed]})


def test_what_waits_for_a_person_comes_first() -> None:
    waits = {"wants": "pin", "key": "me@home (Ed25519)", "request": "ssh wants to log in"}
    shown = show.status({"tokens": [TOKEN], "modules": [], "waiting": [waits]})
    assert shown.startswith(
        "waits for a PIN: ssh wants to log in, with the key me@home (Ed25519)\n\nwork\n"
    )


def test_keys_show_everything_a_person_copies() -> None:
    key: dict[str, Any] = {
        "label": "ssh",
        "token": "work",
        "kind": "ECDSA P-256",
        "uri": "pkcs11:token=work;object=ssh",
        "ssh": "ecdsa-sha2-nistp256 AAAA ssh (work)",
        "fingerprint": "SHA256:abc",
        "certificates": ["CN=Alice, valid until 2027-01-01"],
        "application": "",
    }
    odd = key | {"ssh": None, "fingerprint": None, "kind": "EC brainpoolP256r1", "certificates": []}
    fido = key | {"label": "me@home", "token": "", "kind": "Ed25519-SK", "uri": ""}
    fido |= {"application": "ssh:", "certificates": []}
    shown = show.keys({"keys": [key, odd, fido], "notes": ["object 7: no CKA_ID"]})
    assert "ssh on work: ECDSA P-256\n  SHA256:abc\n  pkcs11:token=work;object=ssh\n" in shown
    assert "AAAA" not in shown  # too long for a terminal's line
    lines = "ecdsa-sha2-nistp256 AAAA ssh (work)\n"
    assert show.ssh_lines({"keys": [key, odd, fido], "notes": []}) == 2 * lines
    assert "certificate: CN=Alice" in shown
    assert "not for ssh" in shown
    assert "me@home added with ssh-add: Ed25519-SK\n  SHA256:abc\n" in shown
    assert "  application: ssh:\n" in shown
    assert shown.endswith("Notes:\n  object 7: no CKA_ID\n")
