"""Worker messages as bytes. No I/O.

A frame is a u32 length (`hsmagent.frame`) and a body: one byte that says which message it is, then
its fields, big-endian. A byte string is its u32 length and its bytes; a list its u32 count and its
items; what may be missing has one byte, 0 or 1, in front.

Both ends are ours and of one version, but the worker holds foreign code that may have overwritten
its memory: a reply that does not parse is a ProtocolError and the end of that worker.
"""

import struct
from collections.abc import Callable
from typing import Any

from hsmagent.errors import ProtocolError
from hsmagent.frame import HEADER
from hsmagent.worker.messages import (
    Action,
    Done,
    Failed,
    Login,
    Logout,
    Look,
    Operate,
    Poll,
    Polled,
    RawObject,
    Reply,
    Request,
    SlotInfo,
    Slots,
    TokenInfo,
)

# A request holds at most what one ssh frame can carry; a reply all objects of all tokens.
MAX_REQUEST = 1 << 20
MAX_REPLY = 1 << 24

_FLAG = struct.Struct(">?")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_FAILED = struct.Struct(">Q?")
_OPERATE = struct.Struct(">BQQQ")
_PAIR = struct.Struct(">QQ")
_SLOT = struct.Struct(">QQQ?")
_TOKEN = struct.Struct(">QQQ?")


class _Reader:
    """Takes the fields off a body, one after the other."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._at = 1  # behind the byte that told which message it is

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        end = self._at + layout.size
        if end > len(self._body):
            raise ProtocolError("a worker message ends too early")
        values = layout.unpack_from(self._body, self._at)
        self._at = end
        return values

    def flag(self) -> bool:
        return bool(self.fields(_FLAG)[0])

    def count(self) -> int:
        """Take the number of things that follow; each takes at least one byte."""
        count: int = self.fields(_U32)[0]
        if count > len(self._body) - self._at:
            raise ProtocolError("a worker message ends too early")
        return count

    def take(self) -> bytes | bytearray:
        body, at = self._body, self._at + _U32.size
        length: int = _U32.unpack_from(body, self._at)[0] if at <= len(body) else len(body)
        self._at = at + length
        if self._at > len(body):
            raise ProtocolError("a worker message ends too early")
        return body[at : self._at]

    def string(self) -> bytes:
        return bytes(self.take())

    def text(self) -> str:
        return self.take().decode(errors="replace")

    def pin(self) -> bytearray | None:
        return bytearray(self.take()) if self.flag() else None

    def end(self) -> None:
        if self._at != len(self._body):
            raise ProtocolError("a worker message with something behind its end")


def _string(value: bytes | bytearray) -> bytes:
    return _U32.pack(len(value)) + value


def _text(value: str) -> bytes:
    return _string(value.encode(errors="replace"))


def _put_pin(out: bytearray, pin: bytearray | None) -> None:
    out += _FLAG.pack(pin is not None)
    if pin is not None:
        # Never through `_string`: its bytes could not be wiped.
        out += _U32.pack(len(pin))
        out += pin


# -- one pair per message; requests are written into a bytearray, since they may hold a PIN ----


def _put_look(out: bytearray, message: Look) -> None:
    out += _FLAG.pack(message.objects)


def _get_look(reader: _Reader) -> Look:
    return Look(reader.flag())


def _put_poll(_out: bytearray, _message: Poll) -> None:
    pass


def _get_poll(_reader: _Reader) -> Poll:
    return Poll()


def _put_login(out: bytearray, message: Login) -> None:
    out += _U64.pack(message.slot) + _string(message.token)
    _put_pin(out, message.pin)


def _get_login(reader: _Reader) -> Login:
    return Login(reader.fields(_U64)[0], reader.string(), reader.pin())


def _put_logout(out: bytearray, message: Logout) -> None:
    out += _U64.pack(message.slot)


def _get_logout(reader: _Reader) -> Logout:
    return Logout(reader.fields(_U64)[0])


def _put_operate(out: bytearray, message: Operate) -> None:
    out += _OPERATE.pack(message.action, message.slot, message.key_type, message.mechanism)
    out += _string(message.id) + _string(message.label)
    out += _string(message.parameter) + _string(message.data)
    _put_pin(out, message.pin)


def _get_operate(reader: _Reader) -> Operate:
    number, slot, key_type, mechanism = reader.fields(_OPERATE)
    try:
        action = Action(number)
    except ValueError:
        raise ProtocolError(f"a worker message with the action {number}") from None
    return Operate(
        action,
        slot,
        key_type,
        mechanism,
        id=reader.string(),
        label=reader.string(),
        parameter=reader.string(),
        data=reader.string(),
        pin=reader.pin(),
    )


def _put_done(out: bytearray, message: Done) -> None:
    out += _string(message.value)


def _get_done(reader: _Reader) -> Done:
    return Done(reader.string())


def _put_failed(out: bytearray, message: Failed) -> None:
    out += _FAILED.pack(message.rv, message.login_lost) + _text(message.where)


def _get_failed(reader: _Reader) -> Failed:
    rv, login_lost = reader.fields(_FAILED)
    return Failed(rv, reader.text(), login_lost)


def _put_slots(out: bytearray, message: Slots) -> None:
    out += _U32.pack(len(message.slots))
    for slot in message.slots:
        out += _SLOT.pack(slot.slot, slot.flags, slot.rv, slot.logged_in)
        out += _U32.pack(len(slot.notes))
        for note in slot.notes:
            out += _text(note)
        out += _FLAG.pack(slot.token is not None)
        if slot.token is not None:
            _put_token(out, slot.token)


def _put_token(out: bytearray, token: TokenInfo) -> None:
    out += _TOKEN.pack(token.flags, token.pin_min, token.pin_max, token.complete)
    for text in (token.label, token.manufacturer, token.model, token.serial):
        out += _string(text)
    out += _U32.pack(len(token.objects))
    for raw in token.objects:
        out += _U32.pack(len(raw.attributes))
        for number, value in raw.attributes:
            out += _U64.pack(number) + _string(value)


def _get_slots(reader: _Reader) -> Slots:
    return Slots(tuple(_get_slot(reader) for _ in range(reader.count())))


def _get_slot(reader: _Reader) -> SlotInfo:
    slot, flags, rv, logged_in = reader.fields(_SLOT)
    notes = tuple(reader.text() for _ in range(reader.count()))
    token = _get_token(reader) if reader.flag() else None
    return SlotInfo(slot, flags, rv, logged_in, notes, token)


def _get_token(reader: _Reader) -> TokenInfo:
    flags, pin_min, pin_max, complete = reader.fields(_TOKEN)
    return TokenInfo(
        label=reader.string(),
        manufacturer=reader.string(),
        model=reader.string(),
        serial=reader.string(),
        flags=flags,
        pin_min=pin_min,
        pin_max=pin_max,
        complete=complete,
        objects=tuple(_get_object(reader) for _ in range(reader.count())),
    )


def _get_object(reader: _Reader) -> RawObject:
    return RawObject(
        tuple((reader.fields(_U64)[0], reader.string()) for _ in range(reader.count()))
    )


def _put_polled(out: bytearray, message: Polled) -> None:
    out += _U64.pack(message.events) + _U32.pack(len(message.slots))
    for pair in message.slots:
        out += _PAIR.pack(*pair)


def _get_polled(reader: _Reader) -> Polled:
    (events,) = reader.fields(_U64)
    return Polled(events, tuple(_get_pair(reader) for _ in range(reader.count())))


def _get_pair(reader: _Reader) -> tuple[int, int]:
    slot, flags = reader.fields(_PAIR)
    return slot, flags


_Put = Callable[[bytearray, Any], None]
_Get = Callable[[_Reader], Any]

_REQUESTS: dict[int, tuple[type, _Put, _Get]] = {
    1: (Look, _put_look, _get_look),
    2: (Poll, _put_poll, _get_poll),
    3: (Login, _put_login, _get_login),
    4: (Logout, _put_logout, _get_logout),
    5: (Operate, _put_operate, _get_operate),
}
_REPLIES: dict[int, tuple[type, _Put, _Get]] = {
    0x81: (Done, _put_done, _get_done),
    0x82: (Failed, _put_failed, _get_failed),
    0x83: (Slots, _put_slots, _get_slots),
    0x84: (Polled, _put_polled, _get_polled),
}
_WRITERS = {
    kind: (number, put)
    for table in (_REQUESTS, _REPLIES)
    for number, (kind, put, _) in table.items()
}


def encode(message: Request | Reply) -> bytearray:
    """Return the whole frame, length in front. The caller wipes one that holds a PIN."""
    number, put = _WRITERS[type(message)]
    out = bytearray(HEADER)
    out.append(number)
    put(out, message)
    out[:HEADER] = (len(out) - HEADER).to_bytes(HEADER, "big")
    return out


def _decode(table: dict[int, tuple[type, _Put, _Get]], body: bytes | bytearray) -> Any:
    if not body or body[0] not in table:
        raise ProtocolError("a worker message of an unknown kind")
    reader = _Reader(body)
    message = table[body[0]][2](reader)
    reader.end()
    return message


def decode_request(body: bytes | bytearray) -> Request:
    """Read a request's body. Raises ProtocolError."""
    message: Request = _decode(_REQUESTS, body)
    return message


def decode_reply(body: bytes | bytearray) -> Reply:
    """Read a reply's body. Raises ProtocolError."""
    message: Reply = _decode(_REPLIES, body)
    return message
