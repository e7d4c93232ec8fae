"""The messages of the agent protocol (RFC 9987): bytes in, frozen values out, and back.

Above each class stand its number and how its fields are read and written, in their order. Private
keys and constraints are bytes here: `software`, `fido` and `constraints` read them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar, dataclass_transform

from hsmagent import frame
from hsmagent.errors import ProtocolError
from hsmagent.ssh import wire
from hsmagent.ssh.wire import UINT32, Reader


class Number(IntEnum):
    """Message numbers (RFC 9987, section 6.1)."""

    SSH_AGENT_FAILURE = 5
    SSH_AGENT_SUCCESS = 6
    SSH_AGENTC_REMOVE_ALL_RSA_IDENTITIES = 9  # of protocol 1; `ssh-add -D` still sends it
    SSH_AGENTC_REQUEST_IDENTITIES = 11
    SSH_AGENT_IDENTITIES_ANSWER = 12
    SSH_AGENTC_SIGN_REQUEST = 13
    SSH_AGENT_SIGN_RESPONSE = 14
    SSH_AGENTC_ADD_IDENTITY = 17
    SSH_AGENTC_REMOVE_IDENTITY = 18
    SSH_AGENTC_REMOVE_ALL_IDENTITIES = 19
    SSH_AGENTC_ADD_SMARTCARD_KEY = 20
    SSH_AGENTC_REMOVE_SMARTCARD_KEY = 21
    SSH_AGENTC_LOCK = 22
    SSH_AGENTC_UNLOCK = 23
    SSH_AGENTC_ADD_ID_CONSTRAINED = 25
    SSH_AGENTC_ADD_SMARTCARD_KEY_CONSTRAINED = 26
    SSH_AGENTC_EXTENSION = 27
    SSH_AGENT_EXTENSION_FAILURE = 28
    SSH_AGENT_EXTENSION_RESPONSE = 29


SSH_AGENT_RSA_SHA2_256 = 2
SSH_AGENT_RSA_SHA2_512 = 4

QUERY = "query"
SESSION_BIND = "session-bind@openssh.com"


# -- the fields ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codec:
    """How one field is read and written."""

    read: Callable[[Reader], Any]
    write: Callable[[Any], bytes]


def _read_identities(reader: Reader) -> tuple[tuple[bytes, str], ...]:
    # A count that lies ends in ProtocolError at the first identity that is not there.
    return tuple((reader.string(), reader.text()) for _ in range(reader.u32()))


def _write_identities(identities: tuple[tuple[bytes, str], ...]) -> bytes:
    parts = [wire.string(blob) + wire.text(comment) for blob, comment in identities]
    return wire.u32(len(parts)) + b"".join(parts)


STRING = Codec(Reader.string, wire.string)
TEXT = Codec(Reader.text, wire.text)
SECRET = Codec(Reader.secret, wire.string)
U32 = Codec(Reader.u32, wire.u32)
REST = Codec(Reader.rest, bytes)
SECRET_REST = Codec(lambda reader: bytearray(reader.raw(reader.left)), bytes)
IDENTITIES = Codec(_read_identities, _write_identities)


class Request:
    """What a client says."""

    __slots__: tuple[str, ...] = ()


class Reply:
    """What an agent says."""

    __slots__: tuple[str, ...] = ()


M = TypeVar("M", bound=Request | Reply)

# number → its class, and how the fields are read and written, in their order
LAYOUTS: dict[int, tuple[type, tuple[Codec, ...]]] = {}
_NUMBERS: dict[type, Number] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _message(number: Number, *codecs: Codec) -> Callable[[type[M]], type[M]]:
    """Make a frozen value of the class; it is the message of this number, with these fields."""

    def register(kind: type[M]) -> type[M]:
        message = dataclass(frozen=True, slots=True)(kind)
        LAYOUTS[number] = message, codecs
        _NUMBERS[message] = number
        return message

    return register


# -- requests --------------------------------------------------------------------------------


@_message(Number.SSH_AGENTC_REQUEST_IDENTITIES)
class RequestIdentities(Request):
    """Ask which keys are there."""


@_message(Number.SSH_AGENTC_SIGN_REQUEST, STRING, STRING, U32)
class SignRequest(Request):
    """Sign `data` with the key that `key_blob` names."""

    key_blob: bytes
    data: bytes = field(repr=False)
    flags: int


@_message(Number.SSH_AGENTC_ADD_IDENTITY, SECRET_REST)
class AddIdentity(Request):
    """Keep a private key: `key`, `string comment`, as bytes (see `software.read`)."""

    body: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_ADD_ID_CONSTRAINED, SECRET_REST)
class AddIdConstrained(Request):
    """Keep a private key: `key`, `string comment`, constraints, as bytes."""

    body: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_REMOVE_IDENTITY, STRING)
class RemoveIdentity(Request):
    """Forget one key."""

    key_blob: bytes


@_message(Number.SSH_AGENTC_REMOVE_ALL_IDENTITIES)
class RemoveAllIdentities(Request):
    """Forget every key."""


@_message(Number.SSH_AGENTC_REMOVE_ALL_RSA_IDENTITIES)
class RemoveAllRsaIdentities(Request):
    """Forget every key of ssh's protocol 1; there are none."""


@_message(Number.SSH_AGENTC_ADD_SMARTCARD_KEY, TEXT, SECRET)
class AddSmartcardKey(Request):
    """Offer the keys of a token."""

    provider: str
    pin: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_REMOVE_SMARTCARD_KEY, TEXT, SECRET)
class RemoveSmartcardKey(Request):
    """Stop offering the keys of a token."""

    provider: str
    pin: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_ADD_SMARTCARD_KEY_CONSTRAINED, TEXT, SECRET, REST)
class AddSmartcardKeyConstrained(Request):
    """Offer the keys of a token, under constraints (see `constraints.read`)."""

    provider: str
    pin: bytearray = field(repr=False)
    constraints: bytes


@_message(Number.SSH_AGENTC_LOCK, SECRET)
class Lock(Request):
    """Hide every key until the same passphrase comes again."""

    passphrase: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_UNLOCK, SECRET)
class Unlock(Request):
    """Show the keys again; the passphrase must be the one of the lock."""

    passphrase: bytearray = field(repr=False)


@_message(Number.SSH_AGENTC_EXTENSION, TEXT, REST)
class Extension(Request):
    """A request that a name identifies, not a number (RFC 9987, section 5.8)."""

    name: str
    contents: bytes


# -- replies ---------------------------------------------------------------------------------


@_message(Number.SSH_AGENT_FAILURE)
class Failure(Reply):
    """The request was refused, or failed; the protocol does not say why."""


@_message(Number.SSH_AGENT_SUCCESS)
class Success(Reply):
    """What was asked is done."""


@_message(Number.SSH_AGENT_IDENTITIES_ANSWER, IDENTITIES)
class IdentitiesAnswer(Reply):
    """The keys: (key blob, comment) each."""

    identities: tuple[tuple[bytes, str], ...]


@_message(Number.SSH_AGENT_SIGN_RESPONSE, STRING)
class SignResponse(Reply):
    """The signature blob: `string algorithm, string signature`."""

    signature: bytes


@_message(Number.SSH_AGENT_EXTENSION_FAILURE)
class ExtensionFailure(Reply):
    """The extension is known, and failed."""


@_message(Number.SSH_AGENT_EXTENSION_RESPONSE, TEXT, REST)
class ExtensionResponse(Reply):
    """The extension's own answer."""

    name: str
    contents: bytes


# -- bytes and back -----------------------------------------------------------------------------


_SIGN = bytes((Number.SSH_AGENTC_SIGN_REQUEST,))
_SIGN_RESPONSE = bytes((Number.SSH_AGENT_SIGN_RESPONSE,))


def decode(body: bytes | bytearray) -> Request | Reply:
    """Read one message, without its length. Raises ProtocolError and nothing else."""
    if body[:1] == _SIGN and (request := _sign_request(body)) is not None:
        return request
    reader = Reader(body)
    number = reader.u8()
    layout = LAYOUTS.get(number)
    if layout is None:
        raise ProtocolError(f"message {number} is not known")
    message, codecs = layout
    value: Request | Reply = message(*[codec.read(reader) for codec in codecs])
    reader.end()
    return value


def _sign_request(body: bytes | bytearray) -> SignRequest | None:
    """Read the most frequent message in one go; None for a malformed one, which `decode` reports.

    A test holds it to the entry in LAYOUTS.
    """
    data = 1 + UINT32 + int.from_bytes(body[1 : 1 + UINT32], "big")
    flags = data + UINT32 + int.from_bytes(body[data : data + UINT32], "big")
    if flags + UINT32 != len(body):
        return None
    return SignRequest(
        bytes(body[1 + UINT32 : data]),
        bytes(body[data + UINT32 : flags]),
        int.from_bytes(body[flags:], "big"),
    )


def wipe(message: Request | Reply) -> None:
    """Overwrite the secrets that `decode` read."""
    for name in message.__slots__:
        value = getattr(message, name)
        if isinstance(value, bytearray):
            frame.wipe(value)


def encode(message: Request | Reply) -> bytes:
    """Write one message, without its length."""
    number = _NUMBERS[type(message)]
    out = bytes((number,))
    for name, codec in zip(message.__slots__, LAYOUTS[number][1], strict=True):
        out += codec.write(getattr(message, name))
    return out


def sign_response(signature: bytes) -> bytes:
    """Write a SignResponse in one go: the same as LAYOUTS has it, which a test holds."""
    return _SIGN_RESPONSE + len(signature).to_bytes(UINT32, "big") + signature


FAILURE = encode(Failure())
SUCCESS = encode(Success())
EXTENSION_FAILURE = encode(ExtensionFailure())
