from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.schsm.tlv import SEQUENCE, fields, first, integer, one, tlv, walk


@given(st.lists(st.tuples(st.sampled_from([0x30, 0x5F29, 0x7F49]), st.binary(max_size=400))))
def test_round_trip(objects: list[tuple[int, bytes]]) -> None:
    assert list(walk(b"".join(tlv(tag, value) for tag, value in objects))) == objects


@given(st.binary(max_size=100))
def test_anything_is_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        fields(data)


def test_integers_are_positive() -> None:
    assert integer(0) == b"\x02\x01\x00"
    assert integer(128) == b"\x02\x02\x00\x80"


@pytest.mark.parametrize(
    "data", ["30", "3005", "300200", "3080000000", "30850000000001", "5F", "7F49"]
)
def test_what_ends_early_or_nowhere_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="data object"):
        list(walk(bytes.fromhex(data)))


def test_one_object_means_one() -> None:
    assert one(tlv(0x30, b"x"), 0x30) == b"x"
    for wrong in (b"", tlv(0x31, b"x"), tlv(0x30) * 2):
        with pytest.raises(ValueError, match="not one"):
            one(wrong, 0x30)


def test_the_first_object_without_what_follows() -> None:
    assert first(b"") == b""
    assert first(tlv(SEQUENCE, bytes(200)) + b"\x02\x08\x00") == tlv(SEQUENCE, bytes(200))
    assert first(tlv(0x7F21, b"x") + b"\xff") == tlv(0x7F21, b"x")
    with pytest.raises(ValueError, match="past the end"):
        first(b"\x30\x05\x00")
