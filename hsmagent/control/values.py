"""Keys, tokens and what is unwrapped, to JSON and back, for both ends of the sockets.

The type of a record's field says how the field travels: binary as base64, the rest as JSON has it.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hsmagent.errors import UsageError
from hsmagent.model import Key, KeyType, TokenId, printable

if TYPE_CHECKING:
    from hsmagent.unwraps import Unwrap

Json = dict[str, Any]

E = TypeVar("E", bound=StrEnum)
R = TypeVar("R", bound="TokenId | Key | Unwrap")


class Fields:
    """The fields of a JSON object. Each method checks the type, and raises UsageError."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise UsageError("the message is not a JSON object")
        self._values: dict[str, object] = values

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text field."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise UsageError(f"the message needs a text field {name!r}")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"the message needs a number {name!r} from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false; false when it is not there."""
        return self._values.get(name, False) is True

    def one_of(self, enum: type[E], name: str, default: str | None = None) -> E:
        """Return a word of this enumeration."""
        value = self.text(name, default)
        try:
            return enum(value)
        except ValueError:
            raise UsageError(f"{printable(value)!r} is none of: {', '.join(enum)}") from None

    def binary(self, name: str, default: bytes | None = None) -> bytes:
        """Return the bytes of a base64 field."""
        if default is not None and name not in self._values:
            return default
        try:
            return from_base64(self.text(name))
        except (binascii.Error, ValueError):
            raise UsageError(f"the field {name!r} of the message is not base64") from None

    def binaries(self, name: str) -> tuple[bytes, ...]:
        """Return the bytes of each entry of a list of base64."""
        texts = map(str, self.each(name))
        return tuple(Fields({name: text}).binary(name) for text in texts)

    def has(self, name: str) -> bool:
        """Return whether a field is there, and not null."""
        return self._values.get(name) is not None

    def fields(self, name: str) -> "Fields":
        """Return a nested object."""
        return Fields(self._values.get(name))

    def each(self, name: str) -> list[Any]:
        """Return a list."""
        value = self._values.get(name)
        if not isinstance(value, list):
            raise UsageError(f"the message needs a list {name!r}")
        return value


def to_base64(data: bytes) -> str:
    """Return binary as text."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """Return the binary of this text. Raises ValueError."""
    return base64.b64decode(text, validate=True)


# -- records, by the types of their fields ---------------------------------------------------


def _of(value: Any) -> Any:
    """Return a record, or what a field of one holds, as JSON."""
    if isinstance(value, bytes):
        return to_base64(value)
    if isinstance(value, tuple):
        return [to_base64(each) for each in value]
    if is_dataclass(value):
        return {field.name: _of(getattr(value, field.name)) for field in fields(value)}
    return value


def _to(kind: type[R], found: Fields) -> R:
    """Read a record of this kind."""
    return kind(*[_READERS[field.type](found, field.name) for field in fields(kind)])


def _optional_token(found: Fields, name: str) -> TokenId | None:
    return _to(TokenId, found.fields(name)) if found.has(name) else None


_READERS: dict[Any, Callable[[Fields, str], Any]] = {
    str: Fields.text,
    bool: Fields.flag,
    bytes: Fields.binary,
    tuple[bytes, ...]: Fields.binaries,
    int: partial(Fields.number, low=0, high=1 << 16),
    KeyType: lambda found, name: found.one_of(KeyType, name),
    TokenId | None: _optional_token,
}


def of_record(record: TokenId | Key) -> Json:
    """Return a token or a key as JSON."""
    return dict(_of(record))


def to_key(values: Json) -> Key:
    """Read a key."""
    return _to(Key, Fields(values))


def of_unwrap(what: "Unwrap") -> Json:
    """Return what is to be unwrapped as JSON."""
    from hsmagent.unwraps import RsaUnwrap

    return {"kind": "rsa" if isinstance(what, RsaUnwrap) else "ecdh", **_of(what)}


def to_unwrap(found: Fields) -> "Unwrap":
    """Read what is to be unwrapped."""
    from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap

    match found.text("kind"):
        case "rsa":
            return _to(RsaUnwrap, found)
        case "ecdh":
            found.number("wrap_bits", 128, 256)
            return _to(EcdhUnwrap, found)
    raise UsageError("the recipient's kind must be rsa or ecdh")
