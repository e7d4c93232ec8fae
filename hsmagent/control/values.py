"""Keys, tokens and what is unwrapped, to JSON and back: both directions side by side.

Both ends of the sockets use it. Binary travels as base64.
"""

import base64
import binascii
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from hsmagent.errors import UsageError
from hsmagent.model import Key, KeyType, TokenId, printable

if TYPE_CHECKING:
    from hsmagent.unwraps import Unwrap

Json = dict[str, Any]

E = TypeVar("E", bound=StrEnum)


class Fields:
    """The fields of a JSON object, typed on the way out. All raise UsageError."""

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


# -- tokens and keys -------------------------------------------------------------------------

_TOKEN = ("module", "label", "serial", "model", "manufacturer", "told_by")


def of_token(token: TokenId) -> Json:
    """Return a token as JSON."""
    return {name: getattr(token, name) for name in _TOKEN}


def to_token(fields: Fields) -> TokenId:
    """Read a token."""
    return TokenId(*map(fields.text, _TOKEN))


def of_key(key: Key) -> Json:
    """Return a key as JSON."""
    return {
        "spki": to_base64(key.spki),
        "key_type": key.key_type,
        "bits": key.bits,
        "curve": key.curve,
        "label": key.label,
        "token": of_token(key.token) if key.token else None,
        "id": to_base64(key.id),
        "certificates": [to_base64(der) for der in key.certificates],
        "authorities": [to_base64(der) for der in key.authorities],
        "always_authenticate": key.always_authenticate,
        "can_sign": key.can_sign,
        "can_decrypt": key.can_decrypt,
        "can_derive": key.can_derive,
        "application": key.application,
        "touch": key.touch,
    }


def to_key(values: Json) -> Key:
    """Read a key."""
    fields = Fields(values)
    return Key(
        spki=fields.binary("spki"),
        key_type=fields.one_of(KeyType, "key_type"),
        bits=fields.number("bits", 0, 1 << 16),
        curve=fields.text("curve"),
        label=fields.text("label"),
        token=to_token(fields.fields("token")) if values.get("token") else None,
        id=fields.binary("id"),
        certificates=tuple(map(from_base64, fields.each("certificates"))),
        authorities=tuple(map(from_base64, fields.each("authorities"))),
        always_authenticate=fields.flag("always_authenticate"),
        can_sign=fields.flag("can_sign"),
        can_decrypt=fields.flag("can_decrypt"),
        can_derive=fields.flag("can_derive"),
        application=fields.text("application"),
        touch=fields.flag("touch"),
    )


# -- what is unwrapped -----------------------------------------------------------------------


def of_unwrap(what: "Unwrap") -> Json:
    """Return what is to be unwrapped as JSON."""
    from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap

    match what:
        case RsaUnwrap():
            return {
                "kind": "rsa",
                "encrypted_key": to_base64(what.encrypted_key),
                "padding": what.padding,
                "oaep_hash": what.oaep_hash,
                "mgf_hash": what.mgf_hash,
                "label": to_base64(what.label),
            }
        case EcdhUnwrap():
            return {
                "kind": "ecdh",
                "encrypted_key": to_base64(what.encrypted_key),
                "point": to_base64(what.point),
                "kdf_hash": what.kdf_hash,
                "wrap_bits": what.wrap_bits,
                "shared_info": to_base64(what.shared_info),
                "cofactor": what.cofactor,
            }


def to_unwrap(fields: Fields) -> "Unwrap":
    """Read what is to be unwrapped."""
    from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap

    match fields.text("kind"):
        case "rsa":
            return RsaUnwrap(
                encrypted_key=fields.binary("encrypted_key"),
                padding=fields.text("padding"),
                oaep_hash=fields.text("oaep_hash"),
                mgf_hash=fields.text("mgf_hash"),
                label=fields.binary("label"),
            )
        case "ecdh":
            return EcdhUnwrap(
                encrypted_key=fields.binary("encrypted_key"),
                point=fields.binary("point"),
                kdf_hash=fields.text("kdf_hash"),
                wrap_bits=fields.number("wrap_bits", 128, 256),
                shared_info=fields.binary("shared_info"),
                cofactor=fields.flag("cofactor"),
            )
    raise UsageError("the recipient's kind must be rsa or ecdh")
