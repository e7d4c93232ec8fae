"""The client's end of p11-kit's RPC, for calls that p11-kit's own client never makes.

newer: as p11-kit writes from 0.25.6 on. Values are those of `hsmagent.p11.rpc`, and so is the table
of calls, which the tests hold to p11-kit's own traffic.
"""

import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hsmagent.p11.calls import SIGNATURES, Call
from hsmagent.p11.kinds import Kind, kind_of
from hsmagent.p11.rpc import CANCEL, NULL, Attribute, Mechanism, Room, parts

HANDSHAKE = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"


class Rv(Exception):
    """An error reply."""

    def __init__(self, rv: int) -> None:
        super().__init__(f"CKR 0x{rv:x}")
        self.rv = rv


# -- requests to bytes -----------------------------------------------------------------------


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def text(value: bytes | None) -> bytes:
    return u32(NULL) if value is None else u32(len(value)) + value


def octets(value: bytes | None) -> bytes:
    return b"\1" + text(value)


def attribute(value: Attribute) -> bytes:
    start = u32(value.type)
    content: Any = value.value
    if content is None:
        return start + b"\0"
    match kind_of(value.type):
        case Kind.BYTE:
            return start + b"\1" + u32(1) + bytes((content,))
        case Kind.NUMBER:
            return start + b"\1" + u32(8) + u64(content)
        case Kind.NUMBERS:
            written = u32(len(content)) + b"".join(map(u64, content))
            return start + b"\1" + u32(8 * len(content)) + written
        case Kind.ATTRIBUTES:
            return start + b"\1" + u32(24 * len(content)) + attributes(content)
    return start + b"\1" + u32(len(content)) + text(content)


def attributes(values: Sequence[Attribute]) -> bytes:
    return u32(len(values)) + b"".join(map(attribute, values))


def rooms(values: Sequence[Room]) -> bytes:
    return u32(len(values)) + b"".join(u32(each.type) + u32(each.size) for each in values)


def mechanism(value: Mechanism, *, newer: bool) -> bytes:
    start = u32(value.type)
    if value == CANCEL:
        return start
    written = b"".join(text(p) if isinstance(p, bytes) else u64(p) for p in value.parameters)
    takes = value.type not in {0x01, 0x40, 0x41, 0x42, 0x1041, 0x1044, 0x1045, 0x1046}
    if newer:
        return start + (bytes((bool(written),)) if takes else b"") + written
    return start + (written or text(None))


def request(call: Call, *values: Any, newer: bool = False) -> bytes:
    """Return the body of a request."""
    signature = SIGNATURES[call][0]
    write: dict[str, Callable[[Any], bytes]] = {
        "y": lambda value: bytes((value,)),
        "u": u64,
        "fy": u32,
        "fu": u32,
        "ay": octets,
        "aA": attributes,
        "fA": rooms,
        "M": lambda value: mechanism(value, newer=newer),
    }
    written = [write[part](value) for part, value in zip(parts(signature), values, strict=True)]
    return u32(call) + text(signature.encode()) + b"".join(written)


# -- replies from bytes ----------------------------------------------------------------------


class Reply:
    """Reads the values of a reply."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, size: int) -> bytes:
        assert size <= len(self.rest)
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def text(self) -> bytes | None:
        size = self.u32()
        return None if size == NULL else self.take(size)

    def octets(self) -> bytes | int | None:
        return self.text() if self.take(1) == b"\1" else self.u32()

    def numbers(self) -> tuple[int, ...] | int:
        there, count = self.take(1), self.u32()
        return tuple(self.u64() for _ in range(count)) if there == b"\1" else count

    def attribute(self) -> Attribute:
        number = self.u32()
        if self.take(1) == b"\0":
            return Attribute(number)
        size = self.u32()
        match kind_of(number):
            case Kind.BYTE:
                return Attribute(number, self.take(1)[0])
            case Kind.NUMBER:
                return Attribute(number, self.u64())
        value = self.text()
        return Attribute(number, bytes(size) if value is None else value, value is None)

    def attributes(self) -> tuple[Attribute, ...]:
        return tuple(self.attribute() for _ in range(self.u32()))


def reply(call: Call, body: bytes) -> tuple[Any, ...]:
    """Return the values of a reply. Raises Rv for an error; fails for what p11-kit cannot parse."""
    found = Reply(body)
    number, signature = found.u32(), found.text()
    if number == 0:
        assert signature == b"u"
        rv = found.u64()
        assert rv, "p11-kit hangs up at an error without a number"
        raise Rv(rv)
    assert number == call
    assert signature == SIGNATURES[call][1].encode()
    read = {
        "u": found.u64,
        "v": lambda: tuple(found.take(2)),
        "s": found.text,
        "ay": found.octets,
        "au": found.numbers,
        "aA": found.attributes,
    }
    values = tuple(read[part]() for part in parts(SIGNATURES[call][1]))
    assert not found.rest
    return values


# -- a connection ----------------------------------------------------------------------------


class RpcClient:
    """A program's connection; `call` waits for the reply."""

    def __init__(self, path: Path, *, version: int = 0, newer: bool = False) -> None:
        self.newer = newer
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.socket.sendall(bytes((version,)))
        self.version = self._read(1)[0]
        self._code = 0

    def initialize(self) -> "RpcClient":
        """Say C_Initialize."""
        self.call(Call.C_Initialize, HANDSHAKE, 0, b"\0")
        return self

    def call(self, call: Call, *values: Any) -> tuple[Any, ...]:
        """Make a call; return the reply's values. Raises Rv."""
        return self.wait(call, self.send(call, *values))

    def send(self, call: Call, *values: Any) -> int:
        """Send a call, and return its code."""
        return self.send_body(request(call, *values, newer=self.newer))

    def send_body(self, body: bytes, options: bytes = b"client") -> int:
        """Send any body."""
        self._code += 1
        header = struct.pack(">III", self._code, len(options), len(body))
        self.socket.sendall(header + options + body)
        return self._code

    def wait(self, call: Call, code: int) -> tuple[Any, ...]:
        """Return the values of the next reply, which must be to this call. Raises Rv."""
        found, body = self.next_reply()
        assert found == code
        return reply(call, body)

    def next_reply(self) -> tuple[int, bytes]:
        """Return the next reply's code and body."""
        code, options, length = struct.unpack(">III", self._read(12))
        return code, self._read(options + length)[options:]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    # -- what most tests do first ------------------------------------------------------------

    def open(self, slot: int | None = None) -> int:
        """Open a session; without a number in the first slot that has a token."""
        if slot is None:
            slot = self.call(Call.C_GetSlotList, 1, 16)[0][0]
        return int(self.call(Call.C_OpenSession, slot, 4)[0])

    def find(self, session: int, *template: Attribute) -> tuple[int, ...]:
        """Return the handles of all objects that match."""
        self.call(Call.C_FindObjectsInit, session, template)
        (found,) = self.call(Call.C_FindObjects, session, 1000)
        self.call(Call.C_FindObjectsFinal, session)
        return tuple(found)

    def values(self, session: int, handle: int, *types: int) -> dict[int, Any]:
        """Return the values of these attributes."""
        wanted = tuple(Room(number, 1 << 16) for number in types)
        told, _ = self.call(Call.C_GetAttributeValue, session, handle, wanted)
        return {each.type: each.value for each in told}
