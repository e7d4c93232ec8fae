from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.frame import Reader
from hsmagent.worker import codec
from hsmagent.worker.messages import (
    Action,
    CardReaders,
    Done,
    Failed,
    KeyUse,
    Login,
    Logout,
    Look,
    Operate,
    Poll,
    Polled,
    PollReaders,
    RawObject,
    Reply,
    Request,
    SlotInfo,
    Slots,
    TokenInfo,
)
from hsmagent.worker.orders import Order, OrderReply

u64 = st.integers(0, 2**64 - 1)
blob = st.binary(max_size=40)
pins = st.none() | st.binary(max_size=20).map(bytearray)
uses = st.builds(KeyUse, st.sampled_from(Action), u64, u64, blob, blob, blob)


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return what a field of this type may hold."""
    plain = {
        int: u64,
        bool: st.booleans(),
        bytes: blob,
        bytearray: blob.map(bytearray),
        str: st.text(max_size=9),
        NoneType: st.none(),
    }
    if hint in plain:
        return plain[hint]
    arguments = get_args(hint)
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*map(any_of, arguments))
    if arguments:
        return st.one_of(*map(any_of, arguments))
    return st.builds(hint, *map(any_of, get_type_hints(hint).values()))


requests = st.one_of(
    any_of(Order),
    st.builds(Look, st.booleans()),
    st.just(Poll()),
    st.builds(Login, u64, blob, pins),
    st.builds(Logout, u64),
    any_of(PollReaders),
    st.builds(Operate, u64, uses, blob, pins),
)
objects = st.builds(RawObject, st.lists(st.tuples(u64, blob), max_size=4).map(tuple))
infos = st.builds(
    TokenInfo,
    *(blob, blob, blob, blob, u64, u64, u64, st.booleans()),
    st.lists(objects, max_size=3).map(tuple),
)
slots = st.builds(
    SlotInfo,
    *(u64, u64, u64, st.booleans()),
    st.lists(st.text(max_size=10), max_size=2).map(tuple),
    st.none() | infos,
)
replies = st.one_of(
    any_of(OrderReply),
    st.builds(Done, blob),
    st.builds(Failed, u64, st.text(max_size=20), st.booleans()),
    any_of(CardReaders),
    st.builds(Polled, u64, st.lists(st.tuples(u64, u64), max_size=3).map(tuple)),
    st.builds(Slots, st.lists(slots, max_size=3).map(tuple)),
)


def body_of(frame: bytearray) -> bytearray:
    reader = Reader(codec.MAX_REPLY)
    bodies = []
    for byte in frame:  # one at a time, as a slow socket would
        reader.feed(bytes((byte,)))
        if (body := reader.next_frame()) is not None:
            bodies.append(body)
    (body,) = bodies
    return body


@given(requests)
def test_requests_survive(request: Request) -> None:
    assert codec.decode_request(body_of(codec.encode(request))) == request


@given(replies)
def test_replies_survive(reply: Reply) -> None:
    assert codec.decode_reply(body_of(codec.encode(reply))) == reply


@given(u64, uses, blob, pins)
def test_an_operation_is_parted_as_it_was_written(
    slot: int, use: KeyUse, data: bytes, pin: bytearray | None
) -> None:
    body = body_of(codec.encode(Operate(slot, use, data, pin)))
    head, rest = codec.operation(body)
    assert (head, rest) == ((codec.operation_head(slot, use), data) if pin is None else (b"", b""))
    assert not head or codec.slot_of(head) == slot


@given(requests | replies, st.binary(max_size=3))
def test_nothing_else_is_taken_for_an_operation(message: Any, more: bytes) -> None:
    body = body_of(codec.encode(message)) + more
    if more or not isinstance(message, Operate) or message.pin is not None:
        assert codec.operation(body) == (b"", b"")


@given(blob)
def test_a_result_is_written_in_one_go(value: bytes) -> None:
    assert codec.encode_result(value) == codec.encode(Done(value))


GOLDEN: list[tuple[Request | Reply, str]] = [
    (Look(objects=True), "00000002 01 01"),
    (Poll(), "00000001 02"),
    (
        Login(7, b"tok", bytearray(b"1234")),
        "00000019 03 0000000000000007 00000003 746f6b 01 00000004 31323334",
    ),
    (Login(7, b"", None), "0000000e 03 0000000000000007 00000000 00"),
    (PollReaders(contents=True, seconds=60), "0000000a 06 01 000000000000003c"),
    (Logout(1), "00000009 04 0000000000000001"),
    (
        Operate(1, KeyUse(Action.SIGN, 3, 0x1041, b"\x05", b"l"), b"dd"),
        (
            "00000033 05 0000000000000001 0000001f 01 0000000000000003 0000000000001041"
            " 00000001 05 00000001 6c 00000000 00000002 6464 00"
        ),
    ),
    (Done(b"ok"), "00000007 81 00000002 6f6b"),
    (Failed(0xA0, "C_Login"), "00000015 82 00000000000000a0 00000007 435f4c6f67696e 00"),
    (
        Polled(1, ((2, 3),)),
        "0000001d 84 0000000000000001 00000001 0000000000000002 0000000000000003",
    ),
    (Slots(()), "00000005 83 00000000"),
    (CardReaders(()), "00000005 85 00000000"),
    (
        Slots(
            (
                SlotInfo(1, 2, 3, logged_in=True, notes=("é",), name=b"r"),
                SlotInfo(
                    4,
                    5,
                    token=TokenInfo(
                        *(b"l", b"", b"", b"s", 6, 7, 8, False), (RawObject(((9, b"v"),)),)
                    ),
                ),
            )
        ),
        (
            "00000090 83 00000002"
            " 0000000000000001 0000000000000002 0000000000000003 01 00000001 00000002 c3a9 00"
            " 00000001 72"
            " 0000000000000004 0000000000000005 0000000000000000 00 00000000 01"
            " 00000001 6c 00000000 00000000 00000001 73"
            " 0000000000000006 0000000000000007 0000000000000008 00"
            " 00000001 00000001 0000000000000009 00000001 76 00000000"
        ),
    ),
]


@pytest.mark.parametrize(("message", "golden"), GOLDEN)
def test_golden(message: Request | Reply, golden: str) -> None:
    assert codec.encode(message) == bytes.fromhex(golden)


@given(replies, st.data())
def test_a_reply_cut_short_is_an_error(reply: Reply, data: st.DataObject) -> None:
    body = body_of(codec.encode(reply))
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ProtocolError):
        codec.decode_reply(body[:cut])


@given(replies, st.binary(min_size=1, max_size=4))
def test_something_behind_the_end_is_an_error(reply: Reply, more: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_reply(body_of(codec.encode(reply)) + more)


@given(st.binary(max_size=200))
def test_noise_is_an_error_or_a_message(noise: bytes) -> None:
    for decode in (codec.decode_reply, codec.decode_request):
        try:
            decode(noise)
        except ProtocolError:
            continue


def test_a_request_is_not_a_reply() -> None:
    with pytest.raises(ProtocolError):
        codec.decode_reply(body_of(codec.encode(Poll())))


def test_an_unknown_action_is_an_error() -> None:
    body = body_of(codec.encode(Operate(1, KeyUse(Action.SIGN, 3, 1, b"", b""), b"")))
    body[13] = 9
    with pytest.raises(ProtocolError, match="action 9"):
        codec.decode_request(body)


def test_what_comes_again_is_read_once() -> None:
    one, two = (
        codec.decode_request(
            body_of(codec.encode(Operate(1, KeyUse(Action.SIGN, 3, 1, b"i", b"l"), data)))
        )
        for data in (b"one", b"two")
    )
    assert isinstance(one, Operate)
    assert isinstance(two, Operate)
    assert (one.data, two.data) == (b"one", b"two")
    assert one.use is two.use


def test_what_comes_again_must_end_where_it_says() -> None:
    body = body_of(codec.encode(Operate(1, KeyUse(Action.SIGN, 3, 1, b"", b""), b"ab")))
    assert body[9:13] == bytes.fromhex("0000001d")
    body[12] += 4  # and so swallows the length of the data
    with pytest.raises(ProtocolError, match="behind its end"):
        codec.decode_request(body)


def test_a_count_of_more_than_there_are_bytes_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="too early"):
        codec.decode_reply(bytes.fromhex("83 ffffffff"))


def test_a_pin_is_copied_once_into_the_frame() -> None:
    pin = bytearray(b"1234")
    frame = codec.encode(Login(7, b"tok", pin))
    assert frame.endswith(pin)
    assert type(frame) is bytearray  # so that it can be wiped
