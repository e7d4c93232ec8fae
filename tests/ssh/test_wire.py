import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.ssh import wire
from hsmagent.ssh.wire import Reader

# RFC 4251, section 5.
MPINTS = [
    (0, "00000000"),
    (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"),
    (0x80, "000000020080"),
    (0x7F, "000000017f"),
]


@pytest.mark.parametrize(("value", "encoded"), MPINTS)
def test_mpints_of_the_rfc(value: int, encoded: str) -> None:
    assert wire.mpint(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).mpint() == value


@pytest.mark.parametrize(
    "encoded",
    [
        "0000000180",  # negative
        "000000020001",  # a needless zero
        "0000000100",  # zero is the empty string
        "00000002ff",  # short
        "00000802" + "01" + "00" * 0x801,  # beyond 16384 bits
    ],
)
def test_mpints_that_are_refused(encoded: str) -> None:
    with pytest.raises(ProtocolError):
        Reader(bytes.fromhex(encoded)).mpint()


@given(st.integers(min_value=0, max_value=1 << 16384 - 1))
def test_mpints_come_back(value: int) -> None:
    assert Reader(wire.mpint(value)).mpint() == value


@given(st.binary(max_size=100))
def test_strings_and_texts_come_back(value: bytes) -> None:
    assert Reader(wire.string(value)).string() == value
    assert Reader(wire.string(value)).secret() == value
    if b"\0" not in value:
        assert wire.text(Reader(wire.string(value)).text()) == wire.string(value)


@given(st.binary(max_size=40), st.integers(0, 0xFFFFFFFF))
def test_a_length_beyond_the_end_is_refused(value: bytes, length: int) -> None:
    reader = Reader(length.to_bytes(4, "big") + value)
    if length > len(value):
        with pytest.raises(ProtocolError):
            reader.string()
    else:
        assert reader.string() == value[:length]


def test_a_zero_byte_in_a_name_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Reader(wire.string(b"root\0x")).text()


def test_bytes_left_over_are_refused() -> None:
    reader = Reader(wire.u32(7) + b"x")
    assert reader.u32() == 7
    with pytest.raises(ProtocolError):
        reader.end()
    assert reader.rest() == b"x"
    reader.end()
