"""Contents are hashed whole, whichever way: at once, or beside reading."""

import hashlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.mail import digest


@pytest.fixture(autouse=True)
def _little_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "CHUNK", 9000)


@given(st.lists(st.binary(max_size=5000), max_size=12))
def test_a_digest_is_that_of_all_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert digest.of("sha256", iter(chunks)) == (hashlib.sha256(whole).digest(), len(whole))


def test_what_goes_wrong_while_reading_ends_the_hashing() -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 5000] * 20
        raise OSError("gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        digest.of("sha512", chunks())
    assert threading.active_count() == before


def test_a_small_content_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    assert digest.of("sha256", iter([b"a" * 4500, b"b" * 4500]))[1] == 9000
    with pytest.raises(TypeError):
        digest.of("sha256", iter([b"a" * 4500] * 4))
