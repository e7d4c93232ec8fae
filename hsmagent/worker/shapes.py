"""The shapes that fields of worker messages take: how values of each are written and read.

`codec` finds the shape of each message's fields, and says what the bytes look like.
"""

# ruff: noqa: D102 - Shape says what every `put` and `get` does

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol

from hsmagent.errors import ProtocolError
from hsmagent.worker.messages import IN_A_REPLY

# Items of all tuples in one message: objects and their attributes, of which there are a dozen.
MAX_ITEMS = 20 * IN_A_REPLY[0]

U32, U64 = struct.Struct(">I"), struct.Struct(">Q")
TOO_SHORT = "a worker message ends too early"

Body = bytes | bytearray
Parts = list[bytes | bytearray]
"""A frame's pieces. A PIN is one of them without being copied; the frame is its only copy."""


class Shape(Protocol):
    """How values of one type are written and read."""

    def put(self, out: Parts, value: Any) -> None:
        """Append a value's pieces to `out`."""

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Neighbouring fields of a fixed size: the value is a sequence of numbers.

    enums: for each field that is an IntEnum, its place, its name, and the members by number.
    """

    layout: struct.Struct
    enums: tuple[tuple[int, str, Mapping[int, IntEnum]], ...]

    def put(self, out: Parts, value: Any) -> None:
        out.append(self.layout.pack(*value))

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        end = at + self.layout.size
        if end > len(body):
            raise ProtocolError(TOO_SHORT)
        values: Sequence[Any] = self.layout.unpack_from(body, at)
        if self.enums:
            values = list(values)
            for index, name, members in self.enums:
                if values[index] not in members:
                    raise ProtocolError(f"a worker message with the {name} {values[index]}")
                values[index] = members[values[index]]
        return values, end


@dataclass(frozen=True, slots=True)
class Single:
    """One number by itself: an item of a tuple, or a number that may be None."""

    numbers: Numbers

    def put(self, out: Parts, value: Any) -> None:
        self.numbers.put(out, (value,))

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        (value,), at = self.numbers.get(body, at)
        return value, at


@dataclass(frozen=True, slots=True)
class Bytes:
    """A byte string."""

    make: Callable[[Body], Any]

    def put(self, out: Parts, value: Any) -> None:
        out += (U32.pack(len(value)), value)

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        start = at + U32.size
        end = start + U32.unpack_from(body, at)[0] if start <= len(body) else start
        if end > len(body):
            raise ProtocolError(TOO_SHORT)
        return self.make(body[start:end]), end


class Text(Bytes):
    """A text, as UTF-8; what cannot be encoded or decoded is replaced."""

    __slots__ = ()

    def put(self, out: Parts, value: Any) -> None:
        Bytes.put(self, out, value.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be None."""

    inner: Shape

    def put(self, out: Parts, value: Any) -> None:
        if value is None:
            out.append(b"\0")
        else:
            out.append(b"\1")
            self.inner.put(out, value)

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        if at >= len(body):
            raise ProtocolError(TOO_SHORT)
        return self.inner.get(body, at + 1) if body[at] else (None, at + 1)


@dataclass(slots=True)
class Left:
    """How many more items the message that is being read may hold; `_decode` sets it anew."""

    items: int = MAX_ITEMS


left = Left()


@dataclass(frozen=True, slots=True)
class Many:
    """A tuple of any length. Each item takes at least one byte, and counts towards MAX_ITEMS."""

    inner: Shape

    def put(self, out: Parts, value: Any) -> None:
        out.append(U32.pack(len(value)))
        for item in value:
            self.inner.put(out, item)

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        start = at + U32.size
        count = U32.unpack_from(body, at)[0] if start <= len(body) else len(body)
        if count > len(body) - start:
            raise ProtocolError(TOO_SHORT)
        left.items -= count
        if left.items < 0:
            raise ProtocolError(f"a worker message with more than {MAX_ITEMS} items")
        items, at = [], start
        for _ in range(count):
            item, at = self.inner.get(body, at)
            items.append(item)
        return tuple(items), at


@dataclass(frozen=True, slots=True)
class Record:
    """A fixed number of fields, in runs. runs: where each run lies, and its shape.

    A run is neighbours of a fixed size (a slice), or one field of another kind (an index).
    make: makes the value of its fields. split: gives a value's fields; where single is set, the
    only field itself.
    """

    make: Callable[..., Any]
    split: Callable[[Any], Any]
    single: bool
    runs: tuple[tuple[slice | int, Shape], ...]

    def put(self, out: Parts, value: Any) -> None:
        values = (self.split(value),) if self.single else self.split(value)
        for where, shape in self.runs:
            field = values[where]
            if shape.__class__ is Bytes:  # its `put` without a call: most fields are
                out.append(U32.pack(len(field)))
                out.append(field)
            else:
                shape.put(out, field)

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        values: list[Any] = []
        for where, shape in self.runs:
            value, at = shape.get(body, at)
            if where.__class__ is slice:
                values += value
            else:
                values.append(value)
        return self.make(*values), at


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that comes again and again: it is encoded and decoded once, and then remembered."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]

    def put(self, out: Parts, value: Any) -> None:
        out.append(self.write(value))

    def get(self, body: Body, at: int) -> tuple[Any, int]:
        piece, at = STRINGS[bytes].get(body, at)
        return self.read(piece), at


def kept(inner: Shape) -> Kept:
    """Return the shape of values that come again and again."""

    @lru_cache(maxsize=256)
    def write(value: Any) -> bytes:
        parts: Parts = []
        inner.put(parts, value)
        piece = b"".join(parts)
        return U32.pack(len(piece)) + piece

    @lru_cache(maxsize=256)
    def read(piece: bytes) -> Any:
        value, end = inner.get(piece, 0)
        if end != len(piece):
            raise ProtocolError("a part of a worker message with something behind its end")
        return value

    return Kept(write, read)


STRINGS: dict[Any, Shape] = {
    bytes: Bytes(bytes),
    # A PIN is the piece that was cut off the body, without a further copy.
    bytearray: Bytes(lambda piece: piece if isinstance(piece, bytearray) else bytearray(piece)),
    str: Text(lambda piece: piece.decode(errors="replace")),
}
