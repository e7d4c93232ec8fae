"""python-pkcs11, as the worker uses it: the only `import pkcs11`.

Attributes are taken as raw bytes. The library's own reading stops at a label that is not UTF-8 and
at a class that it does not know, so that one odd object would hide all the others.
"""

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Any, Self

from hsmagent import imports

with imports.late("pkcs11.util."):  # they import asn1crypto, and nothing here calls them
    import pkcs11
    from pkcs11 import _pkcs11
    from pkcs11.attributes import AttributeMapper
    from pkcs11.exceptions import PKCS11Error

from hsmagent.worker import spec
from hsmagent.worker.cryptoki import Cryptoki, ModuleError, check_loadable
from hsmagent.worker.messages import Action, Operate

_RVS = {
    "".join(part.capitalize() for part in name.removeprefix("CKR_").split("_")): rv
    for rv, name in spec.RETURN_VALUES.items()
}

_DER_LONG = 0x80  # from here on, a DER length takes a byte more

# What a module in trouble can make the library raise besides its own errors: lengths that cannot
# be allocated, values that its tables do not know.
TROUBLE = (PKCS11Error, MemoryError, OverflowError, ValueError, TypeError, NotImplementedError)


def error_of(error: BaseException, where: str) -> ModuleError:
    """Return the library's error as a ModuleError, without its text, which may hold anything."""
    name = type(error).__name__
    rv = _RVS.get(name, 0)
    return ModuleError(rv, where if rv else f"{where} ({name})")


class _RawAttributes(AttributeMapper):
    """Attributes as bytes, except for those by which the library picks an object's class."""

    def unpack_attributes(self, key: Any, value: bytes) -> Any:
        if key == spec.CKA_CLASS:
            return int.from_bytes(value, sys.byteorder)
        if spec.CKA_ENCRYPT <= key <= spec.CKA_DERIVE:
            return any(value)
        return value


def _function_list(loaded: _pkcs11.lib) -> int:
    """Return the address of the CK_FUNCTION_LIST that the library uses.

    The library has no attribute for it: it is the first field of the C structure that follows the
    object's header in memory.
    """
    address = ctypes.c_void_p.from_address(id(loaded) + object.__basicsize__).value
    if not address:
        raise ModuleError(spec.CKR_GENERAL_ERROR, "C_GetFunctionList")
    return address


class _Loaded(_pkcs11.lib):
    """The library's own object for a module, initialised through the same function list."""

    def __new__(cls, path: str, _parameters: str) -> Self:
        """Load the module."""
        # The library's stub declares no __new__, but a C class takes its arguments there.
        return super().__new__(cls, path)  # type: ignore[call-arg]

    def __init__(self, path: str, parameters: str) -> None:
        self.cryptoki = Cryptoki(_function_list(self))
        self.cryptoki.initialize(parameters)
        super().__init__(path)

    def initialize(self) -> None:
        """Do nothing: `Cryptoki.initialize` has called C_Initialize, with its parameters."""


class Library:
    """A loaded, initialised module. cryptoki: the calls that go round the library.

    Raises ModuleError, and OSError when the module cannot be loaded.
    """

    def __init__(self, path: str, parameters: str) -> None:
        check_loadable(path)
        try:
            self._loaded = _Loaded(path, parameters)
        except TROUBLE as error:
            raise error_of(error, "C_GetInfo") from None
        self.cryptoki = self._loaded.cryptoki
        self._slots: dict[int, Any] = {}
        self._remember_slots()

    def open_session(self, slot: int) -> Any:
        """Open a session without a PIN; what it reads comes as bytes."""
        if slot not in self._slots:
            self._remember_slots()
        try:
            return self._slots[slot].get_token().open(attribute_mapper=_RawAttributes())
        except KeyError:
            raise ModuleError(spec.CKR_TOKEN_NOT_PRESENT, "C_OpenSession") from None
        except TROUBLE as error:
            raise error_of(error, "C_OpenSession") from None

    def _remember_slots(self) -> None:
        """Keep the library's slots. To find one, it would read all, and one bad slot fails that."""
        with suppress(*TROUBLE):
            self._slots = {slot.slot_id: slot for slot in self._loaded.get_slots()}


def search(session: Any, number: int, notes: list[str]) -> list[Any]:
    """Return the objects of class CKO_* `number`, as far as the module lists them."""
    found = []
    try:
        template = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass(number)}
        for thing in session.get_objects(template):
            found.append(thing)  # noqa: PERF402 - what came before a failure is kept
    except TROUBLE as error:
        where = error_of(error, "listing stopped early").where
        notes.append(f"objects may be missing: {where}")
    return found


def attributes(thing: Any, wanted: tuple[int, ...], notes: list[str]) -> dict[int, bytes]:
    """Read an object's attributes, one by one where reading them together fails."""
    try:
        values: dict[int, Any] = thing.get_attributes(wanted)
    except TROUBLE:
        values = {}
        for number in wanted:
            try:
                values[number] = thing[number]
            except TROUBLE:
                continue
        if not values:
            notes.append("an object that cannot be read is skipped")
    return {number: _bytes(value) for number, value in values.items()}


def _bytes(value: Any) -> bytes:
    return bytes([value]) if isinstance(value, bool) else bytes(value)


# -- private keys ----------------------------------------------------------------------------


def perform(key: Any, message: Operate) -> bytes:
    """Decrypt or derive with a private key's object. Raises ModuleError."""
    action = message.use.action
    name = action.name.lower()
    try:
        return _ACTIONS[action](key, message)
    except TROUBLE as error:
        raise error_of(error, name) from None
    except AttributeError:
        # The library gives an object the methods that its CKA_SIGN, … allow.
        raise ModuleError(spec.CKR_KEY_FUNCTION_NOT_PERMITTED, name) from None


class _Pin:
    """Lets the library hand our bytearray to C_Login: it calls `encode` on its PIN."""

    def __init__(self, pin: bytearray) -> None:
        self._pin = pin

    def encode(self, _encoding: str) -> bytearray:
        return self._pin


def _decrypt(key: Any, message: Operate) -> bytes:
    pin = None if message.pin is None else _Pin(message.pin)
    plain: bytes = key.decrypt(message.data, mechanism=_mechanism(message.use.mechanism), pin=pin)
    return plain


def _derive(key: Any, message: Operate) -> bytes:
    """ECDH without a KDF. Some modules want the point as it is, others in DER, as CKA_EC_POINT."""
    point = message.data
    try:
        return _derive_with(key, message, point)
    except TROUBLE:
        header = b"\x04" + (
            bytes((len(point),)) if len(point) < _DER_LONG else bytes((0x81, len(point)))
        )
        return _derive_with(key, message, header + point)


def _derive_with(key: Any, message: Operate, point: bytes) -> bytes:
    size = (len(message.data) - 1) // 2
    secret = key.derive_key(
        pkcs11.KeyType.GENERIC_SECRET,
        size * 8,
        mechanism=_mechanism(message.use.mechanism),
        mechanism_param=(pkcs11.KDF.NULL, None, point),
        capabilities=0,
        template={pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: True},
    )
    try:
        value: bytes = secret[pkcs11.Attribute.VALUE]
    finally:
        with suppress(*TROUBLE):
            secret.destroy()
    return value


@cache
def _mechanism(number: int) -> Any:
    """Return the library's enum member, kept, since making one takes as long as the call itself."""
    return pkcs11.Mechanism(number)


_ACTIONS = {Action.DECRYPT: _decrypt, Action.DERIVE: _derive}
