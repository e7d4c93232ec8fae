"""Shares and what is made of them; the golden ones are sc-hsm-tool's and openssl's work."""

import json
import subprocess
from pathlib import Path

import pytest

from hsmagent.schsm import dkek
from hsmagent.schsm.dkek import WrongPassword, combine

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())


def no_progress(_done: float) -> None:
    pass


def test_reads_a_share_of_the_tool() -> None:
    told: list[float] = []
    content = bytes.fromhex(GOLDEN["share"]["file"])
    share = dkek.decrypt_share(content, GOLDEN["share"]["password"].encode(), told.append)
    assert share.hex() == GOLDEN["share"]["share"]
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) == 300


def test_openssl_reads_ours_with_its_one_round(tmp_path: Path) -> None:
    share = dkek.make_share()
    ours = tmp_path / "share.pbe"
    ours.write_bytes(dkek.encrypt_share(share, b"a password", no_progress, rounds=1))
    openssl = ["openssl", "enc", "-d", "-aes-256-cbc", "-md", "md5", "-pass", "pass:a password"]
    done = subprocess.run([*openssl, "-in", ours], capture_output=True, check=True)
    assert done.stdout == share


def test_a_wrong_password_is_seen() -> None:
    content = dkek.encrypt_share(bytes(32), b"right", no_progress, rounds=2)
    assert dkek.decrypt_share(content, b"right", no_progress, rounds=2) == bytes(32)
    with pytest.raises(WrongPassword):
        dkek.decrypt_share(content, b"wrong", no_progress, rounds=2)


@pytest.mark.parametrize("content", [b"", b"Salted__", b"Pickled_" + bytes(56), b"Salted__" * 9])
def test_what_is_no_share_is_told_before_any_waiting(content: bytes) -> None:
    with pytest.raises(ValueError, match="DKEK share"):
        dkek.decrypt_share(content, b"", no_progress)


def test_the_check_value_and_the_order_of_shares() -> None:
    whole = combine([bytes.fromhex(GOLDEN["dkek"])])
    assert whole.kcv.hex() == GOLDEN["kcv"]
    one, two, three = (dkek.make_share() for _ in range(3))
    assert combine([one, two, three]) == combine([three, one, two])
    assert combine([one, two]) != combine([one, three])


def test_no_share_shows_in_a_representation() -> None:
    assert "00" not in repr(combine([bytes(32)]))
