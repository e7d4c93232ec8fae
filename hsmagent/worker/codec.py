"""Worker messages as bytes, by the types of their fields. No I/O.

A frame is a u32 length (`hsmagent.frame`) and a body: one byte that says which message it is, then
its fields in the order in which the class has them, big-endian:

    int                 u64
    bool, an IntEnum    one byte
    bytes, str          u32 length, bytes (of UTF-8)
    X | None            one byte, 0 or 1, and X if it is 1
    tuple[X, ...]       u32 count, as many X
    tuple[X, Y]         X, Y
    a dataclass         its fields; before those of a class in KEPT, u32 their length in bytes

How a class is written and read is worked out once, so that a new message needs no code
here. Both ends are ours and of one version, but the worker holds foreign code that may have
overwritten its memory: a reply that does not parse is a ProtocolError and the end of that worker.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import IntEnum
from functools import cache, partial
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from hsmagent.errors import ProtocolError
from hsmagent.frame import HEADER
from hsmagent.worker.messages import KEPT, Done, KeyUse, Operate, Reply, Request
from hsmagent.worker.shapes import (
    MAX_ITEMS,
    STRINGS,
    U32,
    U64,
    Body,
    Kept,
    Many,
    Numbers,
    Optional,
    Parts,
    Record,
    Shape,
    Single,
    kept,
    left,
)

if TYPE_CHECKING:
    from hsmagent.worker.orders import Order, OrderReply

# A request holds at most what one ssh frame can carry; a reply all objects of all tokens.
MAX_REQUEST = 1 << 20
MAX_REPLY = 4 << 20

# The first byte: a message's place in its union, counted from here.
_FIRST_REQUEST = 0x01
_FIRST_REPLY = 0x81
_DONE = bytes((_FIRST_REPLY + get_args(Reply).index(Done),))
_RESULT = struct.Struct(">IcI")  # the head of a Done's frame
_OPERATE = _FIRST_REQUEST + get_args(Request).index(Operate)

# -- from types to shapes --------------------------------------------------------------------


def _letter(hint: Any) -> str:
    """Return `struct`'s letter for a type of a fixed size, "" for another one."""
    if hint is bool:
        return "?"
    if hint is int:
        return "Q"
    return "B" if isinstance(hint, type) and issubclass(hint, IntEnum) else ""


def _shape(hint: Any) -> Shape:
    """Return how values of a type are written. Raises TypeError for a type not listed above."""
    if hint in STRINGS:
        return STRINGS[hint]
    if _letter(hint):
        return Single(_numbers((hint,)))
    if is_dataclass(hint) and isinstance(hint, type):
        return kept(_record(hint)) if hint in KEPT else _record(hint)
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        if arguments[-1] is Ellipsis:
            return Many(_shape(arguments[0]))
        return Record(lambda *values: values, tuple, single=False, runs=_runs(arguments))
    match [argument for argument in arguments if argument is not NoneType]:
        case [inner] if len(arguments) > 1:
            return Optional(_shape(inner))
    raise TypeError(f"a worker message cannot hold a {hint}")


def _record(hint: type) -> Record:
    hints = get_type_hints(hint)
    split = attrgetter(*hints) if hints else lambda _: ()
    return Record(hint, split, single=len(hints) == 1, runs=_runs(tuple(hints.values())))


def _runs(hints: tuple[Any, ...]) -> tuple[tuple[slice | int, Shape], ...]:
    runs: list[tuple[slice | int, Shape]] = []
    at = 0
    while at < len(hints):
        end = at
        while end < len(hints) and _letter(hints[end]):
            end += 1
        if end > at:
            runs.append((slice(at, end), _numbers(hints[at:end])))
        else:
            runs.append((at, _shape(hints[at])))
        at = max(end, at + 1)
    return tuple(runs)


def _numbers(hints: tuple[Any, ...]) -> Numbers:
    return Numbers(
        struct.Struct(">" + "".join(map(_letter, hints))),
        tuple(
            (index, hint.__name__.lower(), {member.value: member for member in hint})
            for index, hint in enumerate(hints)
            if _letter(hint) == "B"
        ),
    )


def operation(body: Body) -> tuple[bytes, bytes]:
    """Part an Operate without a PIN: its slot and use as they were written, and its data.

    Returns b"" twice for any other body.
    """
    use = 1 + U64.size + U32.size
    behind = use + int.from_bytes(body[use - U32.size : use], "big")
    data = behind + U32.size
    end = data + int.from_bytes(body[behind:data], "big")
    if body[0] != _OPERATE or end + 1 != len(body) or body[end]:
        return b"", b""
    return bytes(body[1:behind]), bytes(body[data:end])


def slot_of(head: bytes) -> int:
    """Return the slot in what `operation` returns first."""
    return int.from_bytes(head[: U64.size], "big")


def operation_head(slot: int, use: KeyUse) -> bytes:
    """Return what `operation` returns first for a slot and a use."""
    return operation(encode(Operate(slot, use, b""))[HEADER:])[0]


@dataclass(frozen=True, slots=True)
class _Operation:
    """Writes an Operate without a PIN, the most frequent request, in one go; else as `ordinary`.

    Tests hold both to the same bytes.
    """

    ordinary: Shape
    use: Kept

    def put(self, out: Parts, value: Any) -> None:
        if value.pin is not None:
            self.ordinary.put(out, value)
            return
        data = value.data
        out += (U64.pack(value.slot), self.use.write(value.use), U32.pack(len(data)), data, b"\0")

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        return self.ordinary.get(body, at)  # of a key that signs again, nobody reads one


def _operation() -> _Operation:
    return _Operation(_record(Operate), kept(_record(KeyUse)))


_REQUESTS: dict[int, Shape] = {}
_REPLIES: dict[int, Shape] = {}
_WRITERS: dict[type, tuple[bytes, Shape]] = {}


def _add(requests: Any, replies: Any) -> None:
    """Register the messages of these unions; their numbers follow those registered before."""
    for kinds, shapes, first in (
        (get_args(requests), _REQUESTS, _FIRST_REQUEST),
        (get_args(replies), _REPLIES, _FIRST_REPLY),
    ):
        for number, kind in enumerate(kinds, first + len(shapes)):
            shapes[number] = _operation() if kind is Operate else _shape(kind)
            _WRITERS[kind] = bytes((*bytes(HEADER), number)), shapes[number]


_add(Request, Reply)


@cache
def _add_orders() -> None:
    """Register management's messages, which neither the daemon nor its workers ever need."""
    from hsmagent.worker import orders

    _add(orders.Order, orders.OrderReply)


def encode(message: "Request | Order | Reply | OrderReply") -> bytearray:
    """Return the whole frame, length in front. The caller wipes one that holds a PIN."""
    kind = type(message)
    if kind not in _WRITERS:
        _add_orders()
    head, shape = _WRITERS[kind]
    parts: Parts = [head]
    shape.put(parts, message)
    out = bytearray().join(parts)
    out[:HEADER] = (len(out) - HEADER).to_bytes(HEADER, "big")
    return out


def encode_result(value: bytes) -> bytes:
    """Return what `encode` returns for Done(value)."""
    return _RESULT.pack(1 + U32.size + len(value), _DONE, len(value)) + value


def _decode(shapes: Mapping[int, Shape], body: Body) -> Any:
    if body and body[0] not in shapes:
        _add_orders()
    if not body or body[0] not in shapes:
        raise ProtocolError("a worker message of an unknown kind")
    left.items = MAX_ITEMS
    message, end = shapes[body[0]].get(body, 1)
    if end != len(body):
        raise ProtocolError("a worker message with something behind its end")
    return message


decode_request: Callable[[Body], "Request | Order"] = partial(_decode, _REQUESTS)
"""Reads a request's body. Raises ProtocolError."""


def decode_reply(body: Body) -> "Reply | OrderReply":
    """Read a reply's body; a Done, the most frequent, in one go. Raises ProtocolError."""
    value = 1 + U32.size
    if body[:1] == _DONE and int.from_bytes(body[1:value], "big") == len(body) - value:
        return Done(bytes(body[value:]))
    message: Reply | OrderReply = _decode(_REPLIES, body)
    return message
