"""D-Bus messages as bytes."""

from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.bus import BusError, Message, Variant, codec
from hsmagent.bus.codec import Kind, decode, encode, length, plain
from hsmagent.errors import ProtocolError

HELLO = Message(
    Kind.METHOD_CALL,
    1,
    destination="org.freedesktop.DBus",
    path="/org/freedesktop/DBus",
    interface="org.freedesktop.DBus",
    member="Hello",
)
# Byte for byte what the specification's rules make of it (section "Message Format").
HELLO_BYTES = (
    b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00"
    b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00"
    b"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00"
    b"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00"
    b"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00"
)
ERROR = Message(
    Kind.ERROR, 9, sender=":1.2", error="org.a.B", reply_serial=3, signature="s", body=["text"]
)

values = st.one_of(
    st.tuples(st.just("s"), st.text(alphabet=st.characters(exclude_categories=["Cs"]))),
    st.tuples(st.just("u"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("x"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("b"), st.booleans()),
    st.tuples(st.just("ay"), st.binary()),
    st.tuples(st.just("as"), st.lists(st.sampled_from(["", "a", "bc"]))),
    st.tuples(st.just("a{sx}"), st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))),
    st.tuples(st.just("(sb)"), st.tuples(st.just("x"), st.booleans()).map(list)),
)


def test_a_golden_message() -> None:
    assert encode(HELLO) == HELLO_BYTES
    assert length(HELLO_BYTES[:16]) == len(HELLO_BYTES)
    assert decode(HELLO_BYTES) == replace(HELLO, body=[])


@given(st.lists(values, max_size=5))
def test_bodies_travel(body: list[tuple[str, object]]) -> None:
    message = Message(
        Kind.SIGNAL,
        7,
        path="/a",
        interface="a.b",
        member="C",
        signature="".join(signature for signature, _ in body),
        body=[value for _, value in body],
    )
    data = encode(message)
    assert length(data[:16]) == len(data)
    assert decode(data) == message


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 4, 5, 77]), st.binary(max_size=200))
def test_garbage_is_refused_plainly(serial: int, kind: int, rest: bytes) -> None:
    header = bytes([ord("l"), kind, 0, 1, 0, 0, 0, 0]) + serial.to_bytes(4, "little")
    with pytest.raises(ProtocolError):
        decode(header + len(rest).to_bytes(4, "little") + rest)


@given(st.data())
def test_a_bent_message_is_read_or_refused_plainly(data: st.DataObject) -> None:
    bent = bytearray(encode(ERROR))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bent) - 1))
        bent[place] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        assert decode(bent).serial >= 0


def test_a_stream_without_an_end_in_sight_is_refused() -> None:
    with pytest.raises(ProtocolError):
        length(b"x" * 16)
    assert length(b"l\1\0\1" + b"\xff" * 4 + bytes(4) + b"\xff" * 4) > 2**32


def test_what_cannot_be_sent_is_refused() -> None:
    for signature, body in (("s", [1]), ("u", ["x"]), ("y", [999]), ("s", ["\udc80"]), ("(", [])):
        with pytest.raises(BusError):
            encode(
                Message(
                    Kind.SIGNAL,
                    1,
                    path="/a",
                    interface="a.b",
                    member="C",
                    signature=signature,
                    body=list(body),
                )
            )
    with pytest.raises(BusError):
        encode(Message(Kind.SIGNAL, 1, path="not a path", interface="a.b", member="C"))


def test_variants_are_unwrapped_however_deep() -> None:
    assert plain([Variant("v", Variant("s", "x")), {"k": Variant("as", ["y"])}]) == [
        "x",
        {"k": ["y"]},
    ]


def test_signatures_that_peers_make_up_are_forgotten() -> None:
    kinds = ["".join(letters) for letters in product("ybnqiux", repeat=4)]
    for kind in kinds:
        values = Variant(f"({kind})", [1 if letter != "b" else True for letter in kind])
        decode(
            encode(
                Message(
                    Kind.SIGNAL,
                    1,
                    path="/a",
                    interface="a.b",
                    member="C",
                    signature="v",
                    body=[values],
                )
            )
        )
    assert len(codec._signatures) <= 2 * codec._MOST_SIGNATURES
