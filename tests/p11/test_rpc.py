"""The codec: p11-kit's own bytes, every value there and back, byte by byte, and garbage."""

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.p11 import rpc
from hsmagent.p11.calls import SIGNATURES, Call
from hsmagent.p11.kinds import Kind, kind_of
from hsmagent.p11.rpc import CANCEL, Attribute, BadCall, Mechanism, Room, Stream
from hsmagent.worker import spec
from tests.p11 import vectors
from tests.parts.token import p11_rpc

CKR_ARGUMENTS_BAD = 7


@pytest.mark.parametrize(("call", "sent", "values"), vectors.REQUESTS, ids=vectors.names)
def test_requests_are_read_as_their_senders_mean_them(
    call: Call, sent: str, values: list[Any]
) -> None:
    body = bytearray.fromhex(sent)
    assert rpc.call_of(body) == call
    assert rpc.values_of(call, body) == values


@pytest.mark.parametrize(("call", "values", "sent"), vectors.REPLIES, ids=vectors.names)
def test_replies_are_what_p11_kit_takes(call: Call, values: tuple[Any, ...], sent: str) -> None:
    assert rpc.reply(call, values).hex() == sent


def test_every_call_has_a_vector() -> None:
    assert {call for call, _, _ in vectors.REQUESTS} == set(Call)
    assert {call for call, _, _ in vectors.REPLIES} == set(Call)


def test_an_error_is_a_reply_of_its_own() -> None:
    assert rpc.error(0x54).hex() == "0000000000000001750000000000000054"


# -- there and back --------------------------------------------------------------------------

number = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**32 - 2)
octets = st.binary(max_size=60)
ATTRIBUTE_TYPES = st.sampled_from(
    [spec.CKA_CLASS, spec.CKA_TOKEN, spec.CKA_ID, spec.CKA_VALUE, 0x40000600, 0xCE534351]
)


def value_of(kind: int) -> st.SearchStrategy[Any]:
    return {
        Kind.BYTE: st.integers(0, 255),
        Kind.NUMBER: number,
        Kind.NUMBERS: st.lists(number, max_size=4).map(tuple),
        Kind.BYTES: octets,
    }[kind_of(kind)]


attribute = ATTRIBUTE_TYPES.flatmap(
    lambda kind: st.builds(Attribute, st.just(kind), st.none() | value_of(kind))
)
nested = st.builds(
    Attribute, st.sampled_from([0x40000211, 0x40000213]), st.lists(attribute, max_size=3).map(tuple)
)
mechanism = st.one_of(
    st.just(CANCEL),
    st.builds(Mechanism, st.sampled_from([0x01, 0x40, 0x1041, 0x1046])),
    st.builds(Mechanism, st.sampled_from([0x0D, 0x43]), st.tuples(small, small, small)),
    st.builds(Mechanism, st.just(0x09), st.tuples(small, small, small, octets)),
    st.builds(Mechanism, st.just(0x1050), st.tuples(small, octets, octets)),
)
VALUES = {
    "y": st.integers(0, 255),
    "u": number,
    "fy": st.integers(0, 2**32 - 1),
    "fu": st.integers(0, 2**32 - 1),
    "ay": octets,
    "aA": st.lists(attribute | nested, max_size=6).map(tuple),
    "fA": st.lists(st.builds(Room, ATTRIBUTE_TYPES, small), max_size=6).map(tuple),
    "M": mechanism,
}


def requests(call: Call) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(VALUES[part] for part in rpc.parts(SIGNATURES[call][0])))


@given(
    st.sampled_from(Call).flatmap(lambda call: st.tuples(st.just(call), requests(call))),
    st.booleans(),
)
def test_every_request_there_and_back(sent: tuple[Call, tuple[Any, ...]], newer: bool) -> None:
    call, values = sent
    body = bytearray(p11_rpc.request(call, *values, newer=newer))
    read = rpc.values_of(call, body)
    if call is Call.C_Login:
        assert read == [*values[:2], None], "a PIN is not even copied"
    else:
        assert tuple(read) == values


REPLY_VALUES = {
    "u": number,
    "v": st.tuples(st.integers(0, 255), st.integers(0, 255)),
    "s": octets,
    "ay": octets | small,
    "au": st.lists(number, max_size=5).map(tuple) | small,
    "aA": st.lists(attribute.filter(lambda a: not isinstance(a.value, tuple)), max_size=6).map(
        tuple
    ),
}


def replies(call: Call) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(REPLY_VALUES[part] for part in rpc.parts(SIGNATURES[call][1])))


@given(st.sampled_from(Call).flatmap(lambda call: st.tuples(st.just(call), replies(call))))
def test_every_reply_there_and_back(sent: tuple[Call, tuple[Any, ...]]) -> None:
    call, values = sent
    assert p11_rpc.reply(call, rpc.reply(call, values)) == values


def test_only_the_size_of_a_value_is_told_to_who_asks_for_the_size() -> None:
    told = rpc.reply(
        Call.C_GetAttributeValue, ((Attribute(spec.CKA_VALUE, b"abc", size_only=True),), 0)
    )
    assert b"abc" not in told
    assert p11_rpc.reply(Call.C_GetAttributeValue, told)[0][0].value == bytes(3)


# -- what nobody sends -----------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_garbage_is_answered(data: bytes) -> None:
    body = bytearray(data)
    for call in Call:
        start = bytearray(p11_rpc.u32(call) + p11_rpc.text(SIGNATURES[call][0].encode()))
        for each in (body, start + body):
            with suppress(BadCall):
                rpc.values_of(call, each)


# A mechanism that is cut may read as a newer client's, with a handle that no key has.
@pytest.mark.parametrize("call", [call for call in Call if "M" not in SIGNATURES[call][0]])
def test_a_call_that_is_cut_or_goes_on_is_refused(call: Call) -> None:
    sent = next(bytes.fromhex(sent) for each, sent, _ in vectors.REQUESTS if each is call)
    for wrong in (*(sent[:size] for size in range(8, len(sent))), sent + b"\0"):
        with pytest.raises(BadCall) as bad:
            rpc.values_of(call, bytearray(wrong))
        assert bad.value.rv == CKR_ARGUMENTS_BAD


def test_another_signature_is_refused() -> None:
    with pytest.raises(BadCall):
        rpc.values_of(Call.C_GetSlotInfo, bytearray.fromhex("000000050000000179") + bytes(8))


def test_attributes_in_attributes_end_somewhere() -> None:
    inner: tuple[Attribute, ...] = ()
    for _ in range(200):
        inner = (Attribute(0x40000211, inner),)
    with pytest.raises(BadCall):
        rpc.values_of(
            Call.C_FindObjectsInit,
            bytearray(p11_rpc.request(Call.C_FindObjectsInit, 1, inner)),
        )


def test_a_million_attributes_are_not_read() -> None:
    body = p11_rpc.request(Call.C_FindObjectsInit, 1, ())[:-4] + p11_rpc.u32(1_000_000)
    with pytest.raises(BadCall):
        rpc.values_of(Call.C_FindObjectsInit, bytearray(body) + bytes(100_000))


# -- the stream ------------------------------------------------------------------------------


def stream_of(*bodies: bytes, version: int = 0) -> bytes:
    frames = [
        struct.pack(">III", code, 6, len(body)) + b"client" + body
        for code, body in enumerate(bodies)
    ]
    return bytes((version,)) + b"".join(frames)


def test_byte_by_byte_as_at_once() -> None:
    bodies = [bytes.fromhex(sent) for _, sent, _ in vectors.REQUESTS]
    stream, found = Stream(), []
    for byte in stream_of(*bodies):
        stream.feed(bytes((byte,)))
        stream.next_version()
        while (frame := stream.next_frame()) is not None:
            found.append((frame.code, bytes(frame.body)))
    assert found == list(enumerate(bodies))
    assert stream.pending == 0


@pytest.mark.parametrize(("theirs", "ours"), [(0, 0), (1, 1), (2, 1), (255, 1)])
def test_the_smaller_version_is_used(theirs: int, ours: int) -> None:
    stream = Stream()
    assert stream.next_version() is None
    stream.feed(bytes((theirs,)))
    assert stream.next_version() == ours
    assert stream.next_version() is None


@pytest.mark.parametrize(
    "header", [(1, 0, rpc.MOST_BODY + 1), (1, rpc.MOST_OPTIONS + 1, 4), (1, 2**32 - 1, 2**32 - 1)]
)
def test_a_length_that_no_call_has_ends_the_stream(header: tuple[int, int, int]) -> None:
    stream = Stream()
    stream.feed(b"\0" + struct.pack(">III", *header))
    stream.next_version()
    with pytest.raises(ProtocolError):
        stream.next_frame()
