"""The Cryptoki calls that change a token: only management's worker has them.

By ctypes, as in `cryptoki`, since python-pkcs11 has no C_InitToken, C_InitPIN and C_SetPIN that
wipe the PIN, and its errors do not tell CKR_*.
"""

import ctypes
from ctypes import byref, c_ubyte, c_ulong, c_void_p
from typing import Any, ClassVar

from hsmagent.worker.cryptoki import Cryptoki, CryptokiError
from hsmagent.worker.orders import Attributes, Mechanism

CKU_SO = 0
_CKF_RW_SERIAL_SESSION = 6
_MOST_OBJECTS = 10_000  # more is a module gone wrong
_MOST_MECHANISMS = 4096
_UNAVAILABLE = c_ulong(-1).value
_LARGEST_VALUE = 1 << 20
_FOUND_AT_ONCE = 64


class _Attribute(ctypes.Structure):
    _fields_ = (("type", c_ulong), ("value", c_void_p), ("length", c_ulong))


class _Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", c_ulong), ("parameter", c_void_p), ("length", c_ulong))


class _MechanismInfo(ctypes.Structure):
    _fields_ = (("least", c_ulong), ("most", c_ulong), ("flags", c_ulong))


class _Template:
    """CK_ATTRIBUTEs; holds the memory that they point to."""

    def __init__(self, attributes: Attributes) -> None:
        self._values = [ctypes.create_string_buffer(value, len(value)) for _, value in attributes]
        self.length = len(attributes)
        self.array = (_Attribute * self.length)()
        for each, (number, _), buffer in zip(self.array, attributes, self._values, strict=True):
            each.type = number
            each.value = ctypes.addressof(buffer)
            each.length = len(buffer)


def _given(pin: bytearray | None) -> tuple[Any, int]:
    """Return a PIN as it is handed over, where it lies; None: it is typed on the reader."""
    return (None, 0) if pin is None else ((c_ubyte * len(pin)).from_buffer(pin), len(pin))


class Provisioning(Cryptoki):
    """A loaded module with the calls that change a token. Raises CryptokiError."""

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

    def open_writable(self, slot: int) -> int:
        """C_OpenSession, read-write; return its handle."""
        handle = c_ulong()
        self._call("C_OpenSession", slot, _CKF_RW_SERIAL_SESSION, None, None, byref(handle))
        return handle.value

    def mechanisms(self, slot: int) -> tuple[Mechanism, ...]:
        """Return what the token can do."""
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
        self._call("C_InitToken", slot, *_given(so_pin), padded)

    def init_pin(self, session: int, pin: bytearray) -> None:
        """C_InitPIN, logged in as the security officer."""
        self._call("C_InitPIN", session, *_given(pin))

    def set_pin(self, session: int, old: bytearray | None, new: bytearray | None) -> None:
        """C_SetPIN of whoever is logged in."""
        self._call("C_SetPIN", session, *_given(old), *_given(new))

    def login_as(self, session: int, user: int, pin: bytearray | None) -> None:
        """C_Login as CKU_USER or CKU_SO, once."""
        self._call("C_Login", session, user, *_given(pin))

    # -- objects ---------------------------------------------------------------------------

    def generate(
        self, session: int, mechanism: int, public: Attributes, private: Attributes
    ) -> None:
        """C_GenerateKeyPair."""
        publics, privates = _Template(public), _Template(private)
        self._call(
            "C_GenerateKeyPair",
            session,
            byref(_Mechanism(mechanism, None, 0)),
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
        """Return those of the attributes that the object has and tells."""
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
            except CryptokiError:
                continue
            found.append((number, buffer.raw[: one.length]))
        return tuple(found)
