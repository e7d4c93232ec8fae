"""The BER reader: what OpenSSL's parser reads, it reads; nothing makes it crash or hang."""

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import UsageError
from hsmagent.mail.cms import ber, der
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.spool import Memory

END = b"\0\0"


def read(data: bytes, tag: int = ber.OCTET_STRING) -> bytes:
    content = Reader(Memory(data)).content(tag, "it")
    once = b"".join(content.chunks())
    assert b"".join(content.chunks()) == once
    assert len(once) == content.size
    return once


@st.composite
def octet_strings(draw: st.DrawFn, depth: int = 3) -> tuple[bytes, bytes]:
    """Make an OCTET STRING in any form BER allows, and what it holds."""
    if depth == 0 or draw(st.booleans()):
        value = draw(st.binary(max_size=300))
        return long_form(draw, 0x04, value), value
    pieces = draw(st.lists(octet_strings(depth - 1), max_size=4))
    coded = b"".join(piece for piece, _ in pieces)
    value = b"".join(value for _, value in pieces)
    if draw(st.booleans()):
        return b"\x24\x80" + coded + END, value
    return long_form(draw, 0x24, coded), value


def long_form(draw: st.DrawFn, tag: int, value: bytes) -> bytes:
    """Write a definite length, sometimes with zeros in front, as BER allows and DER does not."""
    if draw(st.booleans()):
        return der.tlv(tag, value)
    size = draw(st.integers(2, 8))
    return bytes((tag, 0x80 | size)) + len(value).to_bytes(size, "big") + value


@given(octet_strings())
def test_octet_strings_in_every_form(case: tuple[bytes, bytes]) -> None:
    coded, value = case
    assert read(coded) == value
    reader = Reader(Memory(coded + b"\x05\x00"))
    assert reader.element(len(coded), "it") == coded
    assert reader.element(2, "null") == der.NULL


@given(octet_strings(), st.data())
def test_cut_short_is_malformed(case: tuple[bytes, bytes], data: st.DataObject) -> None:
    coded, _ = case
    cut = data.draw(st.integers(0, len(coded) - 1))
    with pytest.raises(Malformed):
        read(coded[:cut])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    for tag in (ber.OCTET_STRING, ber.SEQUENCE):
        try:
            reader = Reader(Memory(data))
            reader.enter(tag | ber.CONSTRUCTED, "it")
            while reader.peek() is not None:
                reader.element(100, "it")
            reader.leave("it")
        except Malformed:
            pass


@given(st.lists(st.integers(0, 2**200)))
def test_what_the_writer_writes_asn1crypto_reads(values: list[int]) -> None:
    data = der.sequence(*map(der.integer, values))

    class Integers(core.SequenceOf):  # type: ignore[misc]
        _child_spec = core.Integer

    assert Integers.load(data, strict=True).native == values
    reader = Reader(Memory(data))
    reader.enter(ber.SEQUENCE, "it")
    assert list(reader.elements(100, 1000, "it")) == [der.integer(value) for value in values]


@given(st.lists(st.integers(0, 2**70), min_size=1, max_size=6), st.integers(0, 2))
def test_object_identifiers(arcs: list[int], first: int) -> None:
    dotted = ".".join(map(str, (first, arcs[0] % 40, *arcs[1:])))
    assert der.oid(dotted) == core.ObjectIdentifier(dotted).dump()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"\x04\x05abcd",
        b"\x04\x80abcd\0\0",
        b"\x24\x80\x04\x01a",
        b"\x24\x80\x02\x01a\0\0",
        b"\x24\x03\x04\x05abcde",
        b"\x1f\x81\x01\x00",
        b"\x04\x89" + bytes(9),
        b"\x04\x84\xff\xff\xff\xffabc",
        b"\x00\x00",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


def test_leave_wants_everything_read() -> None:
    reader = Reader(Memory(der.sequence(der.NULL)))
    reader.enter(ber.SEQUENCE, "it")
    with pytest.raises(Malformed, match="holds more"):
        reader.leave("it")


def test_an_indefinite_element_ends_within_what_holds_it() -> None:
    reader = Reader(Memory(b"\x30\x02\x30\x80\0\0"))
    reader.enter(ber.SEQUENCE, "it")
    reader.enter(ber.SEQUENCE, "the inner one")
    with pytest.raises(Malformed, match="longer than what holds it"):
        reader.leave("the inner one")


def test_an_indefinite_element_is_walked_to_its_limit_only() -> None:
    class Counting(Memory):
        read = 0

        def read_at(self, offset: int, count: int) -> bytes:
            Counting.read += count
            return super().read_at(offset, count)

    reader = Reader(Counting(b"\x30\x80" + der.octets(b"") * 100_000 + b"\0\0"))
    with pytest.raises(Malformed, match="50 are allowed"):
        reader.element(50, "it")
    assert Counting.read < 10_000


def test_limits() -> None:
    with pytest.raises(UsageError, match="has 102 bytes; 50 are allowed"):
        Reader(Memory(der.octets(bytes(100)))).element(50, "it")
    reader = Reader(Memory(der.sequence(der.NULL, der.NULL, der.NULL)))
    reader.enter(ber.SEQUENCE, "it")
    with pytest.raises(Malformed, match="too many"):
        list(reader.elements(10, 2, "it"))
