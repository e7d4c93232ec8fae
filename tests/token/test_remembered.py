import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.model import Key, KeyType, TokenId
from hsmagent.token.objects import Listing
from hsmagent.token.remembered import Memories, Memory, memory_of

TOKEN = TokenId("/module.so", "work", "1", "model")


def key(number: int) -> Key:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = bytes((number,))
    return Key(
        *(spki, KeyType.EC, 256, "secp256r1", f"key {number}", TOKEN, name),
        can_derive=True,
    )


SHOWN, HIDDEN, NOBODYS, NEW = (key(number) for number in range(1, 5))


def memory() -> Memory:
    each_time = replace(SHOWN, always_authenticate=True, can_sign=False)
    listing = Listing((each_time, HIDDEN), frozenset({NOBODYS.spki}))
    return memory_of(listing, frozenset({SHOWN.spki, NOBODYS.spki}))


def test_completes_a_listing() -> None:
    listing = memory().complete(Listing((SHOWN, NOBODYS, NEW), notes=("a note",)))
    assert [one.label for one in listing.keys] == ["key 1", "key 2", "key 4"]
    assert listing.keys[0].always_authenticate
    assert not listing.keys[0].can_sign
    assert listing.notes == ("a note",)


def test_a_key_that_showed_before_and_does_not_now_was_deleted() -> None:
    assert [one.label for one in memory().complete(Listing()).keys] == ["key 2"]


def test_survives_a_restart(tmp_path: Path) -> None:
    certified = replace(SHOWN, certificates=(b"der",))
    kept = memory_of(Listing((certified, HIDDEN), frozenset({NOBODYS.spki})), frozenset())
    Memories(tmp_path / "state").keep(TOKEN, kept)
    assert Memories(tmp_path / "state").of(TOKEN) == kept
    (file,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert Memories(tmp_path / "state").of(replace(TOKEN, serial="2")) == Memory({})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"{",
        lambda _: b"[]",
        lambda _: b'{"keys": [{}]}',
        lambda text: text.replace(b'"spki": "M', b'"spki": "A'),
        lambda text: json.dumps(json.loads(text) | {"orphans": 3}).encode(),
    ],
)
def test_a_spoiled_file_counts_as_none(tmp_path: Path, spoil: object) -> None:
    Memories(tmp_path).keep(TOKEN, memory())
    (file,) = tmp_path.iterdir()
    file.write_bytes(spoil(file.read_bytes()))  # type: ignore[operator]
    assert Memories(tmp_path).of(TOKEN) == Memory({})


def test_what_a_modules_tokens_had_last_used_first(tmp_path: Path) -> None:
    memories = Memories(tmp_path)
    tokens = [replace(TOKEN, serial=serial) for serial in "abc"]
    for age, token in enumerate(tokens):
        memories.keep(token, memory())
        (file,) = (file for file in tmp_path.iterdir() if file.stat().st_mtime > 1000)
        os.utime(file, (age, age))
    memories.keep(replace(TOKEN, module="/other.so"), memory())
    memories.keep(tokens[0], memory())  # it is used now
    (tmp_path / "token-spoiled.json").write_text("{}")
    assert list(Memories(tmp_path).of_module("/module.so")) == [tokens[0], tokens[2], tokens[1]]
    assert Memories(tmp_path / "none").of_module("/module.so") == {}


def test_a_folder_that_cannot_be_written_is_survived(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"not a folder")
    memories = Memories(tmp_path / "state")
    memories.keep(TOKEN, memory())
    assert memories.of(TOKEN) == memory()


def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    memories = Memories(tmp_path)
    memories.keep(TOKEN, memory())
    (file,) = tmp_path.iterdir()
    file.unlink()
    memories.keep(TOKEN, memory())
    assert not list(tmp_path.iterdir())
