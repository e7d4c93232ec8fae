"""D-Bus messages: bytes in, frozen values out. The only import of the D-Bus library.

dbus-next up to Python 3.14, its living fork dbus-fast from 3.15 on, where dbus-next cannot be
imported any more. We use their marshalling and their checks of names and signatures, and not
their connection: dbus-next's spins the event loop when the bus closes during authentication,
drops the connection on a full socket buffer, closes sockets only at garbage collection, leaves
received descriptors inheritable, lets calls hang for ever once the bus died, and sends handlers'
tracebacks to peers. `connection`, `calls` and `exports` do that part.
"""

import io
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Any

from hsmagent import imports
from hsmagent.bus.errors import INVALID_ARGS, BusError
from hsmagent.errors import ProtocolError

# The tests run once more with dbus-fast on a Python that has both.
_FAST = sys.version_info >= (3, 15) or os.environ.get("HSMAGENT_DBUS_LIBRARY") == "dbus-fast"
LIBRARY = "dbus_fast" if _FAST else "dbus_next"
_UNUSED = ("aio", "glib", "introspection", "message_bus", "proxy_object", "service")
with imports.late(*(f"{LIBRARY}.{name}" for name in _UNUSED)):
    _library: Any = import_module(LIBRARY)
_unmarshaller: Any = import_module(f"{LIBRARY}._private.unmarshaller")

Variant: Any = _library.Variant

# dbus-next remembers every signature that it ever met, and peers choose them; dbus-fast forgets.
_signatures: dict[str, Any] = getattr(_library.signature.SignatureTree, "_cache", {})
_MOST_SIGNATURES = 1024

HEADER = 16
_BODY_LENGTH = slice(4, 8)
_FIELDS_LENGTH = slice(12, 16)
_ALIGNMENT = 8


class Kind(IntEnum):
    """Message types."""

    METHOD_CALL = 1
    METHOD_RETURN = 2
    ERROR = 3
    SIGNAL = 4


class Flag(IntEnum):
    """Message flags that we read or set."""

    NO_REPLY_EXPECTED = 1


# Header fields that the libraries call as we do, and that are None to them where they are absent.
_NAMES = ("sender", "destination", "path", "interface", "member")
# Of a message's header fields; dbus-fast does not look.
_REQUIRED = {
    Kind.METHOD_CALL: ("path", "member"),
    Kind.METHOD_RETURN: ("reply_serial",),
    Kind.ERROR: ("error", "reply_serial"),
    Kind.SIGNAL: ("path", "interface", "member"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `fds` are received descriptors; an "h" in `body` is an index into them."""

    kind: Kind
    serial: int
    flags: int = 0
    sender: str = ""
    destination: str = ""
    path: str = ""
    interface: str = ""
    member: str = ""
    error: str = ""
    reply_serial: int = 0
    signature: str = ""
    body: Sequence[Any] = ()
    fds: tuple[int, ...] = ()


def length(header: bytes | bytearray) -> int:
    """Return the whole message's length, from its first 16 bytes. Raises ProtocolError."""
    order = {ord("l"): "little", ord("B"): "big"}.get(header[0])
    if order is None:
        raise ProtocolError("the bus sent something that is no D-Bus message")
    body, fields = (
        int.from_bytes(header[part], order)  # type: ignore[arg-type]
        for part in (_BODY_LENGTH, _FIELDS_LENGTH)
    )
    return HEADER + fields + -fields % _ALIGNMENT + body


def decode(data: bytes | bytearray, fds: tuple[int, ...] = ()) -> Message:
    """Read one whole message. Raises ProtocolError; the stream is not lost by it."""
    if len(_signatures) > _MOST_SIGNATURES:
        _signatures.clear()
    try:
        message = _unmarshaller.Unmarshaller(io.BytesIO(data)).unmarshall()
        # A type that we do not know must be ignored, says the specification: it raises here.
        found = Message(
            Kind(message.message_type.value),
            message.serial,
            message.flags.value,
            error=message.error_name or "",
            reply_serial=message.reply_serial or 0,
            signature=message.signature,
            body=plain(list(message.body)),
            fds=fds,
            **{name: getattr(message, name) or "" for name in _NAMES},
        )
    except Exception as error:  # the library lets out whatever its parser stumbled over
        raise ProtocolError("the bus sent a message that cannot be read") from error
    if not all(getattr(found, name) for name in _REQUIRED[found.kind]):
        raise ProtocolError("the bus sent a message that lacks a header field")
    return found


def encode(message: Message) -> bytes:
    """Write one message. Raises BusError where body, signature or a name is wrong."""
    try:
        ready = _library.Message(
            message_type=_library.MessageType(message.kind),
            flags=_library.MessageFlag(message.flags),
            error_name=message.error or None,
            reply_serial=message.reply_serial,
            signature=message.signature,
            body=list(message.body),
            serial=message.serial,
            **{name: getattr(message, name) or None for name in _NAMES},
        )
        # The libraries make bytes nowhere else.
        return bytes(ready._marshall(negotiate_unix_fd=False))  # noqa: SLF001
    except (TypeError, ValueError, AttributeError, IndexError, struct.error) as error:
        raise BusError(INVALID_ARGS, "not a message that D-Bus can carry") from error


def plain(value: Any) -> Any:
    """Unwrap variants, at every level and however often; containers become lists and dicts."""
    while isinstance(value, Variant):
        value = value.value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return bytes(value) if isinstance(value, bytearray) else value
