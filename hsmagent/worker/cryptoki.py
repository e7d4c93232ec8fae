"""The Cryptoki calls that python-pkcs11 lacks, makes unsafely, or reports without their CKR_*.

Through ctypes: C_Initialize with parameters (NSS), the slot list, slot and token info as raw bytes
(PIN length limits, flags at this moment), a session that lives for the login, C_Login with a PIN
that can be wiped, C_Logout, and C_SignInit and C_Sign, to which the library adds a third call.
Used in the worker only.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_ubyte, c_ulong, c_void_p
from typing import Any, ClassVar

from hsmagent import MANUFACTURER
from hsmagent.worker import spec
from hsmagent.worker.messages import TokenInfo

_LONGEST_SIGNATURE = 4096  # bytes, of an RSA key with 32768 bits
_ED25519_SIGNATURE = 64
_MAX_SLOTS = 1024  # a module that names more has gone wrong

# Each function's place in CK_FUNCTION_LIST, counted behind the CK_VERSION, and its argument types.
_FUNCTIONS: dict[str, tuple[int, tuple[Any, ...]]] = {
    "C_Initialize": (0, (c_void_p,)),
    "C_GetSlotList": (4, (c_ubyte, c_void_p, c_void_p)),
    "C_GetSlotInfo": (5, (c_ulong, c_void_p)),
    "C_GetTokenInfo": (6, (c_ulong, c_void_p)),
    "C_OpenSession": (12, (c_ulong, c_ulong, c_void_p, c_void_p, c_void_p)),
    "C_CloseSession": (13, (c_ulong,)),
    "C_GetSessionInfo": (15, (c_ulong, c_void_p)),
    "C_Login": (18, (c_ulong, c_ulong, c_void_p, c_ulong)),
    "C_Logout": (19, (c_ulong,)),
    "C_SignInit": (42, (c_ulong, c_void_p, c_ulong)),
    "C_Sign": (43, (c_ulong, c_char_p, c_ulong, c_void_p, c_void_p)),
    "C_WaitForSlotEvent": (67, (c_ulong, c_void_p, c_void_p)),
}


Signing = Callable[[bytes, bytearray | None], bytes]
"""Signs data, with the PIN for a key that wants it for each use. Raises ModuleError."""


class ModuleError(Exception):
    """A call that failed: its CKR_* (0 where that is not known) and which call it was.

    login_lost: the token's login ended with it.
    """

    def __init__(self, rv: int, where: str, *, login_lost: bool = False) -> None:
        super().__init__(where)
        self.rv = rv
        self.where = where
        self.login_lost = login_lost


class _Version(ctypes.Structure):
    _fields_ = (("major", c_ubyte), ("minor", c_ubyte))


class _SlotInfo(ctypes.Structure):
    _fields_ = (
        ("description", c_ubyte * 64),
        ("manufacturer", c_ubyte * 32),
        ("flags", c_ulong),
        ("hardware", _Version),
        ("firmware", _Version),
    )


class _TokenInfo(ctypes.Structure):
    # Byte arrays and not c_char ones, whose value would end at the first NUL.
    _fields_ = (
        ("label", c_ubyte * 32),
        ("manufacturer", c_ubyte * 32),
        ("model", c_ubyte * 16),
        ("serial", c_ubyte * 16),
        ("flags", c_ulong),
        ("sessions", c_ulong * 4),
        ("pin_max", c_ulong),
        ("pin_min", c_ulong),
        ("memory", c_ulong * 4),
        ("hardware", _Version),
        ("firmware", _Version),
        ("clock", c_ubyte * 16),
    )


class _SessionInfo(ctypes.Structure):
    _fields_ = (("slot", c_ulong), ("state", c_ulong), ("flags", c_ulong), ("error", c_ulong))


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", c_ulong), ("parameter", c_char_p), ("length", c_ulong))


class _InitializeArgs(ctypes.Structure):
    _fields_ = (("mutexes", c_void_p * 4), ("flags", c_ulong), ("reserved", c_char_p))


def _stripped(field: Any) -> bytes:
    # Blanks are the standard's padding, NULs a common mistake.
    return bytes(field).rstrip(b" \0")


def given(pin: bytearray | None) -> tuple[Any, int]:
    """Return a PIN and its length as a call takes them; None: it is typed on the reader.

    The module reads the bytearray itself, so that no copy is left behind.
    """
    return (None, 0) if pin is None else ((c_ubyte * len(pin)).from_buffer(pin), len(pin))


def check_loadable(path: str) -> None:
    """Raise OSError, with the dynamic linker's reason, for what is not a PKCS#11 module."""
    if not hasattr(ctypes.CDLL(path), "C_GetFunctionList"):
        raise OSError(f"{path} is not a PKCS#11 module")


class Cryptoki:
    """A loaded module, by the address of its CK_FUNCTION_LIST. Raises ModuleError.

    The list is python-pkcs11's: p11-kit's modules make a new one at each C_GetFunctionList, and
    what was initialised through one is not by another.
    """

    functions: ClassVar[dict[str, tuple[int, tuple[Any, ...]]]] = _FUNCTIONS

    def __init__(self, function_list: int) -> None:
        self.function_list = function_list
        first = function_list + ctypes.sizeof(c_void_p)  # CK_VERSION and its padding
        self._calls: dict[str, Any] = {}
        for name, (index, arguments) in self.functions.items():
            address = c_void_p.from_address(first + index * ctypes.sizeof(c_void_p)).value
            if address:
                self._calls[name] = ctypes.CFUNCTYPE(c_ulong, *arguments)(address)

    def _function(self, name: str) -> Any:
        call = self._calls.get(name)
        if call is None:
            raise ModuleError(spec.CKR_FUNCTION_NOT_SUPPORTED, name)
        return call

    def _call(self, name: str, *arguments: Any) -> None:
        rv = self._function(name)(*arguments)
        if rv != spec.CKR_OK:
            raise ModuleError(rv, name)

    def initialize(self, parameters: str) -> None:
        """C_Initialize; `parameters` are for modules such as NSS that want a string."""
        if not parameters:
            self._call("C_Initialize", None)
            return
        arguments = _InitializeArgs(reserved=parameters.encode())
        self._call("C_Initialize", byref(arguments))

    def slot_count(self) -> int:
        """Return how many slots there are. When asked for this, modules look for new readers."""
        count = c_ulong(0)
        self._call("C_GetSlotList", 0, None, byref(count))
        if count.value > _MAX_SLOTS:
            raise ModuleError(spec.CKR_GENERAL_ERROR, "C_GetSlotList")
        return count.value

    def slots(self) -> tuple[int, ...]:
        """Return the ids of all slots, with a token or without."""
        count = c_ulong(self.slot_count())
        ids = (c_ulong * count.value)()
        if count.value:
            self._call("C_GetSlotList", 0, ids, byref(count))
        return tuple(ids[: count.value])

    def slot_info(self, slot: int) -> tuple[int, bytes]:
        """Return the slot's CKF_* flags and its description.

        A slot that hsmagent itself serves to PKCS#11 programs counts as empty: to use its tokens
        would be to ask ourselves.
        """
        info = _SlotInfo()
        self._call("C_GetSlotInfo", slot, byref(info))
        ours = _stripped(info.manufacturer) == MANUFACTURER.encode()
        return info.flags & ~(ours * spec.CKF_TOKEN_PRESENT), _stripped(info.description)

    def token(self, slot: int) -> TokenInfo:
        """Return what the token says of itself now, without its objects."""
        info = _TokenInfo()
        self._call("C_GetTokenInfo", slot, byref(info))
        names = info.label, info.manufacturer, info.model, info.serial
        label, manufacturer, model, serial = map(_stripped, names)
        numbers = info.flags, info.pin_min, info.pin_max
        return TokenInfo(label, manufacturer, model, serial, *numbers, complete=False)

    def open_session(self, slot: int, flags: int = spec.CKF_SERIAL_SESSION) -> int:
        """C_OpenSession, read-only unless the CKF_* flags say more; return its handle."""
        handle = c_ulong()
        self._call("C_OpenSession", slot, flags, None, None, byref(handle))
        return handle.value

    def close_session(self, session: int) -> None:
        """C_CloseSession."""
        self._call("C_CloseSession", session)

    def logged_in(self, session: int) -> bool:
        """Return whether the session has user functions. Raises when it is gone."""
        info = _SessionInfo()
        self._call("C_GetSessionInfo", session, byref(info))
        return info.state in {spec.CKS_RO_USER_FUNCTIONS, spec.CKS_RW_USER_FUNCTIONS}

    def login(self, session: int, pin: bytearray | None, user: int = spec.CKU_USER) -> None:
        """C_Login as this CKU_*, once; None: the PIN is typed on the reader's PIN pad.

        The caller wipes `pin`.
        """
        self._call("C_Login", session, user, *given(pin))

    def signing(self, session: int, key: int, mechanism: int, parameter: bytes) -> Signing:
        """Return what signs with a private key, for as long as its handle and the session are good.

        It calls C_SignInit and C_Sign, and C_Login in between for a key that wants its PIN for each
        use. It does not ask for the signature's size first: there is room for any, and for no more
        than an Ed25519 signature where that is made, since NSS refuses more.
        """
        room = _ED25519_SIGNATURE if mechanism == spec.CKM_EDDSA else _LONGEST_SIGNATURE
        what = Mechanism(mechanism, parameter or None, len(parameter))
        out, length = (c_ubyte * _LONGEST_SIGNATURE)(), c_ulong()
        view, at, into, size = memoryview(out), byref(what), byref(out), byref(length)
        begin, finish = self._function("C_SignInit"), self._function("C_Sign")

        def sign(data: bytes, pin: bytearray | None = None) -> bytes:
            rv = begin(session, at, key)
            if rv != spec.CKR_OK:
                raise ModuleError(rv, "C_SignInit")
            if pin is not None:
                self.login(session, pin, spec.CKU_CONTEXT_SPECIFIC)
            length.value = room
            rv = finish(session, data, len(data), into, size)
            if rv != spec.CKR_OK:
                raise ModuleError(rv, "C_Sign")
            return bytes(view[: length.value])

        return sign

    def logout(self, session: int) -> None:
        """C_Logout."""
        self._call("C_Logout", session)

    def slot_event(self) -> bool | None:
        """Return whether a token came or went since the last call; None: it cannot be told."""
        try:
            self._call("C_WaitForSlotEvent", spec.CKF_DONT_BLOCK, byref(c_ulong()), None)
        except ModuleError as error:
            return False if error.rv == spec.CKR_NO_EVENT else None
        return True
