"""Base64 in even lines is decoded where it is read; everything else is not taken for that."""

import base64
import os
import textwrap
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.mail import base64_view, layers, mime
from hsmagent.mail.base64_view import Base64View
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.spool import Memory, Region, Spool

HEAD = b"Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n"
DATA = os.urandom(5000)


@pytest.fixture(autouse=True)
def _small_is_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_view, "IN_MEMORY", 10)
        patch.setattr(base64_view, "_WINDOW", 64)
        yield


def in_lines(data: bytes, width: int = 76, newline: str = "\n", end: str = "\n") -> bytes:
    lines = textwrap.wrap(base64.b64encode(data).decode(), width)
    return (newline.join(lines) + end).encode()


def view(body: bytes) -> Base64View | None:
    return base64_view.over(Region(Memory(b"before" + body + b"after"), 6, 6 + len(body)))


reads = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=5)


@given(
    st.binary(min_size=60, max_size=300),
    st.sampled_from((4, 8, 60, 64, 76)),
    st.sampled_from(("\n", "\r\n")),
    st.sampled_from(("", "\n", "\r\n", "\n\n\n")),
    reads,
)
def test_it_is_what_it_stands_for(
    data: bytes, width: int, newline: str, end: str, wanted: list[tuple[int, int]]
) -> None:
    found = view(in_lines(data, width, newline, end))
    assert found is not None
    assert found.size == len(data)
    assert b"".join(Region.whole(found).chunks()) == data
    for offset, count in wanted:
        assert found.read_at(offset, count) == data[offset : offset + count]


LINES = in_lines(DATA)
UNEVEN = {
    "small": b"QUFB\n",
    "odd width": in_lines(DATA, 75),
    "two forms": in_lines(DATA[:2850], 76) + in_lines(DATA[2850:], 64),
    "two ends": in_lines(DATA[:2850], 76) + in_lines(DATA[2850:], 76, "\r\n"),
    "blanks": LINES.replace(b"\n", b"    \n"),
    "an empty line first": b"\n" + LINES,
    "cut short": LINES[:-2],
}


@pytest.mark.parametrize("name", UNEVEN)
def test_other_bodies_are_not_taken_for_it(name: str) -> None:
    assert view(UNEVEN[name]) is None


@pytest.mark.parametrize("name", ["two forms", "blanks", "an empty line first"])
def test_they_are_decoded_all_the_same(name: str) -> None:
    entity = mime.read(Region.whole(Memory(HEAD + UNEVEN[name])))
    found = layers.decoded(entity, sealed=False)
    assert isinstance(found, Spool)
    assert b"".join(Region.whole(found).chunks()) == DATA


@pytest.mark.parametrize("damage", [b"=", b"!", b" ", b"\n", b"\0"])
@pytest.mark.parametrize("at", [100, 2000, 2076 - 2076 % 77 + 75])
def test_what_is_no_base64_is_told_where_it_is_read(damage: bytes, at: int) -> None:
    assert LINES[at : at + 1] != b"\n"
    found = view(LINES[:at] + damage + LINES[at + 1 :])
    assert found is not None
    with pytest.raises(Malformed, match="not valid base64"):
        b"".join(Region.whole(found).chunks())
