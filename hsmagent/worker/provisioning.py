"""The Cryptoki calls that change a token: only management's worker has them.

By ctypes, as in `cryptoki`, since python-pkcs11's C_InitToken, C_InitPIN and C_SetPIN take a PIN
that cannot be wiped, and its errors do not tell CKR_*.
"""

import ctypes
from ctypes import byref, c_ubyte, c_ulong, c_void_p
from typing import Any, ClassVar

from hsmagent.worker import cryptoki
from hsmagent.worker.cryptoki import Cryptoki, ModuleError, given
from hsmagent.worker.orders import Attributes, Mechanism

_MOST_OBJECTS = 10_000  # a module that finds more has gone wrong
_MOST_MECHANISMS = 4096
_UNAVAILABLE = c_ulong(-1).value
_LARGEST_VALUE = 1 << 20
_FOUND_AT_ONCE = 64


class _Attribute(ctypes.Structure):
    _fields_ = (("type", c_ulong), ("value", c_void_p), ("length", c_ulong))


class _MechanismInfo(ctypes.Structure):
    _fields_ = (("least", c_ulong), ("most", c_ulong), ("flags", c_ulong))


class _Template:
    """An array of CK_ATTRIBUTE, and the memory that it points to."""

    def __init__(self, attributes: Attributes) -> None:
        self._values = [ctypes.create_string_buffer(value, len(value)) for _, value in attributes]
        self.length = len(attributes)
        self.array = (_Attribute * self.length)()
        for each, (number, _), buffer in zip(self.array, attributes, self._values, strict=True):
            each.type = number
            each.value = ctypes.addressof(buffer)
            each.length = len(buffer)


class Provisioning(Cryptoki):
    """A loaded module with the calls that change a token. Raises ModuleError."""

    functions: ClassVar[dict[str, tuple[int, tuple[Any, ...]]]] = {
        **Cryptoki.functions,
        "C_GetMechanismList": (7, (c_ulong, c_void_p, c_void_p)),
        "C_GetMechanismInfo": (8, (c_ulong, c_ulong, c_void_p)),
        "C_InitToken": (9, (c_ulong, c_void_p, c_ulong, c_void_p)),
        "C_InitPIN": (10, (c_ulong, c_void_p, c_ulong)),
        "C_SetPIN": (11, (c_ulong, c_void_p, c_ulong, c_void_p, c_ulong)),
        "C_CreateObject": (20, (c_ulong, c_void_p, c_ulong, c_void_p)),
        "C_DestroyObject": (22, (c_ulong, c_ulong)),
        "C_GetAttributeValue": (24, (c_ulong, c_ulong, c_void_p, c_ulong)),
        "C_SetAttributeValue": (25, (c_ulong, c_ulong, c_void_p, c_ulong)),
        "C_FindObjectsInit": (26, (c_ulong, c_void_p, c_ulong)),
        "C_FindObjects": (27, (c_ulong, c_void_p, c_ulong, c_void_p)),
        "C_FindObjectsFinal": (28, (c_ulong,)),
        "C_GenerateKeyPair": (
            59,
            (c_ulong, c_void_p, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
        ),
    }

    def mechanisms(self, slot: int) -> tuple[Mechanism, ...]:
        """Return the token's mechanisms."""
        count = c_ulong()
        self._call("C_GetMechanismList", slot, None, byref(count))
        numbers = (c_ulong * min(count.value, _MOST_MECHANISMS))()
        count.value = len(numbers)
        self._call("C_GetMechanismList", slot, numbers, byref(count))
        found = []
        for number in numbers[: count.value]:
            info = _MechanismInfo()
            self._call("C_GetMechanismInfo", slot, number, byref(info))
            found.append(Mechanism(number, info.least, info.most, info.flags))
        return tuple(found)

    # -- PINs ------------------------------------------------------------------------------

    def init_token(self, slot: int, so_pin: bytearray, label: bytes) -> None:
        """C_InitToken."""
        padded = (c_ubyte * 32)(*label[:32].ljust(32))
        self._call("C_InitToken", slot, *given(so_pin), padded)

    def init_pin(self, session: int, pin: bytearray) -> None:
        """C_InitPIN, logged in as the security officer."""
        self._call("C_InitPIN", session, *given(pin))

    def set_pin(self, session: int, old: bytearray | None, new: bytearray | None) -> None:
        """C_SetPIN of whoever is logged in."""
        self._call("C_SetPIN", session, *given(old), *given(new))

    # -- objects ---------------------------------------------------------------------------

    def generate(
        self, session: int, mechanism: int, public: Attributes, private: Attributes
    ) -> None:
        """C_GenerateKeyPair."""
        publics, privates = _Template(public), _Template(private)
        self._call(
            "C_GenerateKeyPair",
            session,
            byref(cryptoki.Mechanism(mechanism, None, 0)),
            publics.array,
            publics.length,
            privates.array,
            privates.length,
            byref(c_ulong()),
            byref(c_ulong()),
        )

    def create(self, session: int, attributes: Attributes) -> None:
        """C_CreateObject."""
        template = _Template(attributes)
        self._call("C_CreateObject", session, template.array, template.length, byref(c_ulong()))

    def change(self, session: int, handle: int, attributes: Attributes) -> None:
        """C_SetAttributeValue."""
        template = _Template(attributes)
        self._call("C_SetAttributeValue", session, handle, template.array, template.length)

    def destroy(self, session: int, handle: int) -> None:
        """C_DestroyObject."""
        self._call("C_DestroyObject", session, handle)

    def find(self, session: int, matching: Attributes) -> list[int]:
        """Return the handles of every object that matches."""
        template = _Template(matching)
        self._call("C_FindObjectsInit", session, template.array, template.length)
        found: list[int] = []
        try:
            while len(found) < _MOST_OBJECTS:
                handles, count = (c_ulong * _FOUND_AT_ONCE)(), c_ulong()
                self._call("C_FindObjects", session, handles, _FOUND_AT_ONCE, byref(count))
                if not count.value:
                    break
                found += handles[: count.value]
        finally:
            self._call("C_FindObjectsFinal", session)
        return found

    def read(self, session: int, handle: int, wanted: tuple[int, ...]) -> Attributes:
        """Return those of the wanted attributes that the object has and the module tells."""
        found = []
        for number in wanted:
            one = _Attribute(number, None, 0)
            try:
                self._call("C_GetAttributeValue", session, handle, byref(one), 1)
                if one.length in (0, _UNAVAILABLE) or one.length > _LARGEST_VALUE:
                    continue
                buffer = ctypes.create_string_buffer(one.length)
                one.value = ctypes.addressof(buffer)
                self._call("C_GetAttributeValue", session, handle, byref(one), 1)
            except ModuleError:
                continue
            found.append((number, buffer.raw[: one.length]))
        return tuple(found)
