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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import IntEnum
from functools import cache, lru_cache
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_origin, get_type_hints

from hsmagent.errors import ProtocolError
from hsmagent.frame import HEADER
from hsmagent.worker.messages import IN_A_REPLY, KEPT, Reply, Request

if TYPE_CHECKING:
    from hsmagent.worker.orders import Order, OrderReply

# A request holds at most what one ssh frame can carry; a reply all objects of all tokens.
MAX_REQUEST = 1 << 20
MAX_REPLY = 4 << 20
# Items of all tuples in one message: objects and their attributes, of which there are a dozen.
MAX_ITEMS = 20 * IN_A_REPLY[0]

# The first byte: a message's place in its union, counted from here.
_FIRST_REQUEST = 0x01
_FIRST_REPLY = 0x81

_U32 = struct.Struct(">I")
_TOO_SHORT = "a worker message ends too early"

_Body = bytes | bytearray
_Parts = list[bytes | bytearray]
"""A frame's pieces. A PIN is one of them without being copied; the frame is its only copy."""


class _Shape(Protocol):
    """How values of one type are written and read."""

    def put(self, out: _Parts, value: Any) -> None:
        """Append a value's pieces to `out`."""

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Neighbouring fields of a fixed size: the value is a sequence of numbers.

    enums: for each field that is an IntEnum, its place, its name, and the members by number.
    """

    layout: struct.Struct
    enums: tuple[tuple[int, str, Mapping[int, IntEnum]], ...]

    def put(self, out: _Parts, value: Any) -> None:
        out.append(self.layout.pack(*value))

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        end = at + self.layout.size
        if end > len(body):
            raise ProtocolError(_TOO_SHORT)
        values: Sequence[Any] = self.layout.unpack_from(body, at)
        if self.enums:
            values = list(values)
            for index, name, members in self.enums:
                if values[index] not in members:
                    raise ProtocolError(f"a worker message with the {name} {values[index]}")
                values[index] = members[values[index]]
        return values, end


@dataclass(frozen=True, slots=True)
class _Single:
    """One number by itself: an item of a tuple, or a number that may be None."""

    numbers: _Numbers

    def put(self, out: _Parts, value: Any) -> None:
        self.numbers.put(out, (value,))

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        (value,), at = self.numbers.get(body, at)
        return value, at


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A byte string."""

    make: Callable[[_Body], Any]

    def put(self, out: _Parts, value: Any) -> None:
        out += (_U32.pack(len(value)), value)

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        start = at + _U32.size
        end = start + _U32.unpack_from(body, at)[0] if start <= len(body) else start
        if end > len(body):
            raise ProtocolError(_TOO_SHORT)
        return self.make(body[start:end]), end


class _Text(_Bytes):
    """A text, as UTF-8; what cannot be encoded or decoded is replaced."""

    __slots__ = ()

    def put(self, out: _Parts, value: Any) -> None:
        _Bytes.put(self, out, value.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class _Optional:
    """A value that may be None."""

    inner: _Shape

    def put(self, out: _Parts, value: Any) -> None:
        if value is None:
            out.append(b"\0")
        else:
            out.append(b"\1")
            self.inner.put(out, value)

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        if at >= len(body):
            raise ProtocolError(_TOO_SHORT)
        return self.inner.get(body, at + 1) if body[at] else (None, at + 1)


@dataclass(slots=True)
class _Left:
    """How many more items the message that is being read may hold; `_decode` sets it anew."""

    items: int = MAX_ITEMS


_left = _Left()


@dataclass(frozen=True, slots=True)
class _Many:
    """A tuple of any length. Each item takes at least one byte, and counts towards MAX_ITEMS."""

    inner: _Shape

    def put(self, out: _Parts, value: Any) -> None:
        out.append(_U32.pack(len(value)))
        for item in value:
            self.inner.put(out, item)

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        start = at + _U32.size
        count = _U32.unpack_from(body, at)[0] if start <= len(body) else len(body)
        if count > len(body) - start:
            raise ProtocolError(_TOO_SHORT)
        _left.items -= count
        if _left.items < 0:
            raise ProtocolError(f"a worker message with more than {MAX_ITEMS} items")
        items, at = [], start
        for _ in range(count):
            item, at = self.inner.get(body, at)
            items.append(item)
        return tuple(items), at


@dataclass(frozen=True, slots=True)
class _Record:
    """A fixed number of fields, in runs. runs: where each run lies, and its shape.

    A run is neighbours of a fixed size (a slice), or one field of another kind (an index).
    make: makes the value of its fields. split: gives a value's fields; where single is set, the
    only field itself.
    """

    make: Callable[..., Any]
    split: Callable[[Any], Any]
    single: bool
    runs: tuple[tuple[slice | int, _Shape], ...]

    def put(self, out: _Parts, value: Any) -> None:
        values = (self.split(value),) if self.single else self.split(value)
        for where, shape in self.runs:
            field = values[where]
            if shape.__class__ is _Bytes:  # its `put` without a call: most fields are
                out.append(_U32.pack(len(field)))
                out.append(field)
            else:
                shape.put(out, field)

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        values: list[Any] = []
        for where, shape in self.runs:
            value, at = shape.get(body, at)
            if where.__class__ is slice:
                values += value
            else:
                values.append(value)
        return self.make(*values), at


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record that comes again and again: it is encoded and decoded once, and then remembered."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]

    def put(self, out: _Parts, value: Any) -> None:
        out.append(self.write(value))

    def get(self, body: _Body, at: int) -> tuple[Any, int]:
        piece, at = _STRINGS[bytes].get(body, at)
        return self.read(piece), at


def _kept(inner: _Shape) -> _Kept:
    @lru_cache(maxsize=256)
    def write(value: Any) -> bytes:
        parts: _Parts = []
        inner.put(parts, value)
        piece = b"".join(parts)
        return _U32.pack(len(piece)) + piece

    @lru_cache(maxsize=256)
    def read(piece: bytes) -> Any:
        value, end = inner.get(piece, 0)
        if end != len(piece):
            raise ProtocolError("a part of a worker message with something behind its end")
        return value

    return _Kept(write, read)


# -- from types to shapes --------------------------------------------------------------------


_STRINGS: dict[Any, _Shape] = {
    bytes: _Bytes(bytes),
    # A PIN is the piece that was cut off the body, without a further copy.
    bytearray: _Bytes(lambda piece: piece if isinstance(piece, bytearray) else bytearray(piece)),
    str: _Text(lambda piece: piece.decode(errors="replace")),
}


def _letter(hint: Any) -> str:
    """Return `struct`'s letter for a type of a fixed size, "" for another one."""
    if hint is bool:
        return "?"
    if hint is int:
        return "Q"
    return "B" if isinstance(hint, type) and issubclass(hint, IntEnum) else ""


def _shape(hint: Any) -> _Shape:
    """Return how values of a type are written. Raises TypeError for a type not listed above."""
    if hint in _STRINGS:
        return _STRINGS[hint]
    if _letter(hint):
        return _Single(_numbers((hint,)))
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        split = attrgetter(*hints) if hints else lambda _: ()
        runs = _runs(tuple(hints.values()))
        record = _Record(hint, split, single=len(hints) == 1, runs=runs)
        return _kept(record) if hint in KEPT else record
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        if arguments[-1] is Ellipsis:
            return _Many(_shape(arguments[0]))
        return _Record(lambda *values: values, tuple, single=False, runs=_runs(arguments))
    match [argument for argument in arguments if argument is not NoneType]:
        case [inner] if len(arguments) > 1:
            return _Optional(_shape(inner))
    raise TypeError(f"a worker message cannot hold a {hint}")


def _runs(hints: tuple[Any, ...]) -> tuple[tuple[slice | int, _Shape], ...]:
    runs: list[tuple[slice | int, _Shape]] = []
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


def _numbers(hints: tuple[Any, ...]) -> _Numbers:
    return _Numbers(
        struct.Struct(">" + "".join(map(_letter, hints))),
        tuple(
            (index, hint.__name__.lower(), {member.value: member for member in hint})
            for index, hint in enumerate(hints)
            if _letter(hint) == "B"
        ),
    )


_REQUESTS: dict[int, _Shape] = {}
_REPLIES: dict[int, _Shape] = {}
_WRITERS: dict[type, tuple[bytes, _Shape]] = {}


def _add(requests: Any, replies: Any) -> None:
    """Register the messages of these unions; their numbers follow those registered before."""
    for kinds, shapes, first in (
        (get_args(requests), _REQUESTS, _FIRST_REQUEST),
        (get_args(replies), _REPLIES, _FIRST_REPLY),
    ):
        for number, kind in enumerate(kinds, first + len(shapes)):
            shapes[number] = _shape(kind)
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
    parts: _Parts = [head]
    shape.put(parts, message)
    out = bytearray().join(parts)
    out[:HEADER] = (len(out) - HEADER).to_bytes(HEADER, "big")
    return out


def _decode(shapes: Mapping[int, _Shape], body: _Body) -> Any:
    if body and body[0] not in shapes:
        _add_orders()
    if not body or body[0] not in shapes:
        raise ProtocolError("a worker message of an unknown kind")
    _left.items = MAX_ITEMS
    message, end = shapes[body[0]].get(body, 1)
    if end != len(body):
        raise ProtocolError("a worker message with something behind its end")
    return message


def decode_request(body: _Body) -> "Request | Order":
    """Read a request's body. Raises ProtocolError."""
    message: Request | Order = _decode(_REQUESTS, body)
    return message


def decode_reply(body: _Body) -> "Reply | OrderReply":
    """Read a reply's body. Raises ProtocolError."""
    message: Reply | OrderReply = _decode(_REPLIES, body)
    return message
