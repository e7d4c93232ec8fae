"""Spools: small ones in memory, large ones in a file without a name, sealed ones unreadable."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import UsageError
from hsmagent.mail import spool
from hsmagent.mail.spool import Region, Spool

SECRET = b"the plaintext of a mail " * 100


@pytest.mark.parametrize("sealed", [False, True])
def test_large_spool_reads_back_at_any_offset(
    sealed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Spool(sealed=sealed) as kept:
        for _ in range(3):
            kept.write(SECRET)
        everything = SECRET * 3
        assert list(tmp_path.iterdir()) == []
        for offset in (0, 1, 15, 16, 17, 999, 1000, 4000, len(everything) - 1, len(everything)):
            assert kept.read_at(offset, 100) == everything[offset : offset + 100]
        assert b"".join(Region(kept, 7, 5000).chunks()) == everything[7:5000]
        assert kept._fd is not None
        on_disk = os.pread(kept._fd, kept.size, 0)
        assert (SECRET[:24] in on_disk) is not sealed


reads = st.tuples(st.integers(0, 300), st.integers(0, 300))


@given(st.lists(st.tuples(st.binary(max_size=70), st.lists(reads, max_size=3)), max_size=8))
def test_sealed_spool_equals_bytes(pieces: list[tuple[bytes, list[tuple[int, int]]]]) -> None:
    whole = b""
    with pytest.MonkeyPatch.context() as patch, Spool(sealed=True) as kept:
        patch.setattr(spool, "IN_MEMORY", 20)
        patch.setattr(spool, "_WINDOW", 64)
        for piece, wanted in pieces:
            kept.write(piece)
            whole += piece
            assert kept.size == len(whole)
            for offset, count in wanted:
                assert kept.read_at(offset, count) == whole[offset : offset + count]


def test_a_sealed_spool_is_not_opened_anew_for_each_small_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    with Spool(sealed=True) as kept:
        kept.write(SECRET)
        assert kept._seal is not None
        opener = Mock(wraps=kept._seal.open)
        monkeypatch.setattr(kept._seal, "open", opener)
        assert b"".join(kept.read_at(at, 1) for at in range(len(SECRET))) == SECRET
    assert opener.call_count == 1


def test_a_message_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_MESSAGE", 100)
    with Spool() as kept:
        kept.write(bytes(99))
        with pytest.raises(UsageError, match="larger than"):
            kept.write(bytes(11))


def test_a_small_runtime_folder_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    monkeypatch.setattr(spool, "IN_MEMORY", 10)
    monkeypatch.setattr(spool, "_room", lambda folder: 0 if folder.endswith("/small") else 1 << 40)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(small))
    monkeypatch.setenv("TMPDIR", str(large))
    with Spool() as kept:
        kept.write(bytes(11))
        assert str(large) in Path(f"/proc/self/fd/{kept._fd}").readlink().as_posix()


def test_no_folder_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 10)
    monkeypatch.setattr(spool, "_FOLDERS", ())
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with Spool() as kept, pytest.raises(Exception, match="TMPDIR"):
        kept.write(bytes(11))
