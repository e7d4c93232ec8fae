"""p11-kit's RPC without I/O: a stream of bytes in, calls out, and replies back to bytes.

A client begins with one byte, the highest version that it knows, and gets one back, the version to
use. Then frames go both ways: three u32 (a code that the reply repeats, the lengths of options and
body), options, body. A body is the number of a call, the signature of its values, and the values
(`calls`). Numbers are big-endian.

Clients write some values in one of two ways, and the version does not tell in which (`_NEWER`). So
both are tried: only the right one ends where the body ends.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hsmagent.errors import ProtocolError
from hsmagent.p11.calls import ERROR, ERROR_SIGNATURE, SIGNATURES, Call
from hsmagent.p11.kinds import Kind, kind_of
from hsmagent.worker.spec import CKM_ECDH1_DERIVE, CKR_ARGUMENTS_BAD, CKR_MECHANISM_INVALID

VERSION = 1
# Bytes. Clients' options are a module's name. A message to be signed comes in one piece.
MOST_OPTIONS = 4096
MOST_BODY = (1 << 20) + 4096
MOST_FRAME = 12 + MOST_OPTIONS + MOST_BODY
MOST_ATTRIBUTES = 512
MOST_NESTED = 2  # as deep as p11-kit itself reads

_HEADER = struct.Struct(">III")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_VERSION = struct.Struct(">BB")
NULL = 0xFFFFFFFF  # as a length: there is no array; as room: there is no buffer


class BadCall(Exception):
    """A call that is answered with `rv`: it cannot be read, or nobody here can do it."""

    def __init__(self, rv: int) -> None:
        super().__init__()
        self.rv = rv


@dataclass(frozen=True, slots=True)
class Frame:
    """One request as it arrived. code: repeated by the reply."""

    code: int
    body: bytearray


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A CK_MECHANISM. parameters: one for each letter of its row in `_PARAMETERS`."""

    type: int
    parameters: tuple[int | bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What a C_GetAttributeValue asks for: an attribute, and how many bytes there are for it."""

    type: int
    size: int


Value = int | bytes | tuple[Any, ...]
"""The value of an attribute: a number for CK_BBOOL and CK_ULONG, a tuple for an array, or bytes."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute and its value. value: None for CK_UNAVAILABLE_INFORMATION.

    size_only: the client asked for the size of the value alone.
    """

    type: int
    value: Value | None = None
    size_only: bool = field(default=False, compare=False)


# -- the stream ------------------------------------------------------------------------------


class Stream:
    """Cuts what a client sends into frames.

    A frame that is longer than any real one raises ProtocolError: hang up. Frames belong to the
    caller, who may wipe them; what is handed out is zeroed here.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._version: int | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what arrived."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Bytes that are fed but not yet handed out."""
        return len(self._buffer)

    def next_version(self) -> int | None:
        """Return the version to use, once, as soon as the client has said its own."""
        if self._version is not None or not self._buffer:
            return None
        self._version = min(self._buffer[0], VERSION)
        del self._buffer[0]
        return self._version

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more is fed."""
        buffer = self._buffer
        if self._version is None or len(buffer) < _HEADER.size:
            return None
        code, options, length = _HEADER.unpack_from(buffer)
        if options > MOST_OPTIONS or length > MOST_BODY:
            raise ProtocolError(f"a call of {options} and {length} bytes, which is too much")
        start = _HEADER.size + options
        end = start + length
        if len(buffer) < end:
            return None
        body = buffer[start:end]
        buffer[:end] = bytes(end)
        del buffer[:end]
        return Frame(code, body)


def frame(code: int, body: bytes | bytearray) -> bytes:
    """Return a reply as a frame."""
    return _HEADER.pack(code, 0, len(body)) + body


# -- reading ---------------------------------------------------------------------------------


class _Body:
    """The values of a body, one after another. Raises ProtocolError where it ends too early."""

    def __init__(self, data: bytearray, *, newer: bool = False, at: int = 0) -> None:
        self._data = data
        self._at = at
        self._newer = newer

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def _pass(self, size: int) -> int:
        """Go past `size` bytes; return where they begin."""
        at = self._at
        self._at = end = at + size
        if end > len(self._data):
            raise ProtocolError("a call that ends too early")
        return at

    def _unpack(self, layout: struct.Struct) -> Any:
        return layout.unpack_from(self._data, self._pass(layout.size))

    def u32(self) -> int:
        return self._unpack(_U32)[0]  # type: ignore[no-any-return]

    def number(self) -> int:
        return self._unpack(_U64)[0]  # type: ignore[no-any-return]

    def byte(self) -> int:
        return self._data[self._pass(1)]

    def text(self) -> bytes:
        """Return a byte array; NULL is one without bytes."""
        length = self.u32()
        if length == NULL:
            return b""
        at = self._pass(length)
        return bytes(self._data[at : self._at])

    def octets(self) -> bytes:
        """Return what is passed as pointer and length; b"" for a NULL pointer."""
        if self.byte():
            return self.text()
        self.u32()
        return b""

    def skipped(self) -> None:
        """Pass over octets: a PIN, which nobody here wants."""
        there = self.byte()
        length = self.u32()
        self._at += length if there and length != NULL else 0

    def attributes(self, depth: int = 0) -> tuple[Attribute, ...]:
        return tuple(self._attribute(depth) for _ in range(self._count()))

    def _count(self) -> int:
        count = self.u32()
        if count > MOST_ATTRIBUTES:
            raise ProtocolError("a call with too many attributes")
        return count

    def _attribute(self, depth: int) -> Attribute:
        number = self.u32()
        if not self.byte():
            return Attribute(number)
        length = self.u32()
        match kind_of(number):
            case Kind.BYTE:
                return Attribute(number, self.byte())
            case Kind.NUMBER:
                return Attribute(number, self.number())
            case Kind.NUMBERS:
                return Attribute(number, tuple(self.number() for _ in range(self._count())))
            case Kind.ATTRIBUTES if depth < MOST_NESTED:
                return Attribute(number, self.attributes(depth + 1))
            case Kind.ATTRIBUTES:
                raise ProtocolError("attributes in attributes without end")
        value = self.text()
        return Attribute(number, value if length else b"")

    def rooms(self, depth: int = 0) -> tuple[Room, ...]:
        """Return what is asked for. Newer clients list the attributes within an array, too."""
        return tuple(self._room(depth) for _ in range(self._count()))

    def _room(self, depth: int) -> Room:
        room = Room(self.u32(), self.u32())
        if self._newer and room.size and kind_of(room.type) is Kind.ATTRIBUTES:
            if depth >= MOST_NESTED:
                raise ProtocolError("attributes in attributes without end")
            self.rooms(depth + 1)
        return room

    def mechanism(self) -> Mechanism:
        """Return a mechanism. Raises BadCall for one whose parameters nobody here can read."""
        number = self.u32()
        if number == NULL:
            return CANCEL
        letters = _PARAMETERS.get(number)
        if letters is None:
            raise BadCall(CKR_MECHANISM_INVALID)
        if not letters:
            if not self._newer:
                self.text()
            return Mechanism(number)
        if self._newer and not self.byte():
            return Mechanism(number)
        return Mechanism(number, tuple(_READ[letter](self) for letter in letters))


CANCEL = Mechanism(NULL)  # in C_SignInit and C_DecryptInit: end the operation under way

# What the mechanisms that we have take: numbers, and byte arrays (b).
_PARAMETERS = {
    **dict.fromkeys((0x01, 0x40, 0x41, 0x42, 0x1041, 0x1044, 0x1045, 0x1046), ""),
    **dict.fromkeys((0x0D, 0x43, 0x44, 0x45), "uuu"),  # hash, MGF, length of the salt
    0x09: "uuub",  # OAEP: hash, MGF, kind of source, source
    CKM_ECDH1_DERIVE: "ubb",  # KDF, shared data, the other's public point
}

_READ: dict[str, Callable[[_Body], Any]] = {
    "y": _Body.byte,
    "u": _Body.number,
    "b": _Body.text,
    "ay": _Body.octets,
    "fy": _Body.u32,
    "fu": _Body.u32,
    "aA": _Body.attributes,
    "fA": _Body.rooms,
    "M": _Body.mechanism,
}
_READ_LOGIN = _READ | {"ay": _Body.skipped}
_NEWER = {"M", "fA"}  # written differently by p11-kit from 0.25.6 on


@cache
def parts(signature: str) -> tuple[str, ...]:
    """Return the values that a signature names: "uayfy" → u, ay, fy."""
    return tuple(re.findall("[af]?.", signature))


def call_of(body: bytearray) -> int:
    """Return the number of the call, even of one that we do not know. Raises BadCall."""
    if len(body) < _U32.size:
        raise BadCall(CKR_ARGUMENTS_BAD)
    number: int = _U32.unpack_from(body)[0]
    return number


def values_of(call: Call, body: bytearray) -> list[Any]:
    """Return the values of a request. Raises BadCall."""
    signature = SIGNATURES[call][0]
    start = 2 * _U32.size + len(signature)
    if body[_U32.size : start] != _U32.pack(len(signature)) + signature.encode():
        raise BadCall(CKR_ARGUMENTS_BAD)
    wanted = parts(signature)
    read = _READ_LOGIN if call is Call.C_Login else _READ
    for newer in (False, True):
        reader = _Body(body, newer=newer, at=start)
        try:
            values = [read[part](reader) for part in wanted]
        except ProtocolError:
            continue
        if reader.at_end():
            return values
        if _NEWER.isdisjoint(wanted):
            break
    raise BadCall(CKR_ARGUMENTS_BAD)


# -- writing ---------------------------------------------------------------------------------


def _text(value: bytes | None) -> bytes:
    return _U32.pack(NULL) if value is None else _U32.pack(len(value)) + value


def _octets(value: bytes | int) -> bytes:
    """Write bytes; or a number of bytes, for a client that asked for it or has too little room."""
    if isinstance(value, int):
        return b"\0" + _U32.pack(value)
    return b"\1" + _text(value)


def _numbers(value: tuple[int, ...] | int) -> bytes:
    if isinstance(value, int):
        return b"\0" + _U32.pack(value)
    return b"\1" + _U32.pack(len(value)) + b"".join(map(_U64.pack, value))


def size_of(attribute: Attribute) -> int:
    """Return how many bytes C wants for the value of an attribute that we show."""
    value = attribute.value
    if isinstance(value, bytes):
        return len(value)
    return 1 if kind_of(attribute.type) is Kind.BYTE else 8


def _attribute(attribute: Attribute) -> bytes:
    value = attribute.value
    start = _U32.pack(attribute.type)
    if value is None:
        return start + b"\0"
    start += b"\1" + _U32.pack(size_of(attribute))
    if isinstance(value, bytes):
        return start + _text(None if attribute.size_only else value)
    if kind_of(attribute.type) is Kind.BYTE:
        return start + bytes((value,))  # type: ignore[arg-type]
    return start + _U64.pack(value)


def _attributes(attributes: tuple[Attribute, ...]) -> bytes:
    return _U32.pack(len(attributes)) + b"".join(map(_attribute, attributes))


_WRITE: dict[str, Callable[[Any], bytes]] = {
    "u": _U64.pack,
    "v": lambda version: _VERSION.pack(*version),
    "s": _text,
    "ay": _octets,
    "au": _numbers,
    "aA": _attributes,
}


@cache
def _start(call: Call) -> bytes:
    signature = SIGNATURES[call][1]
    return _U32.pack(call) + _text(signature.encode())


def reply(call: Call, values: tuple[Any, ...] = ()) -> bytes:
    """Return the body of a reply; its values as the call's signature has them."""
    written = zip(parts(SIGNATURES[call][1]), values, strict=True)
    return _start(call) + b"".join([_WRITE[part](value) for part, value in written])


def error(rv: int) -> bytes:
    """Return the body of a reply that says CKR_…, which is not CKR_OK."""
    return _U32.pack(ERROR) + _text(ERROR_SIGNATURE.encode()) + _U64.pack(rv)
