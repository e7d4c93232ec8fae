"""One PKCS#11 module inside the worker: its tokens, their logins and private keys.

The only `import pkcs11`. The rules it keeps, each learned the hard way:

- One *anchor* session per login, opened without a PIN, carries C_Login and C_Logout. Private keys
  are used on another session, which is thrown away after any failure: a failed operation may leave
  it wedged.
- Every handle of a slot is dropped with its login. Modules reuse or invalidate them at will.
- Object searches run to their end (`list`): a search left open blocks its session.
- Attributes are taken as raw bytes. The library's own reading stops at a label that is not UTF-8
  or a class it does not know, and one odd object would hide all the others.
"""

import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pkcs11
from pkcs11 import _pkcs11
from pkcs11.attributes import AttributeMapper
from pkcs11.exceptions import PKCS11Error

from hsmagent.token import spec
from hsmagent.token.cryptoki import Cryptoki, CryptokiError
from hsmagent.token.messages import (
    Action,
    Login,
    Operate,
    Polled,
    RawObject,
    SlotInfo,
)

_RVS = {
    "".join(part.capitalize() for part in name.removeprefix("CKR_").split("_")): rv
    for rv, name in spec.RETURN_VALUES.items()
}

_FULL_POLL = 4  # every so many polls the slots' flags are read whatever the events say
_DER_LONG = 0x80  # from here on, a DER length takes a byte more

# What a module in trouble can make the library raise besides its own errors: lengths that cannot
# be allocated, values that its tables do not know.
_TROUBLE = (PKCS11Error, MemoryError, OverflowError, ValueError, TypeError, NotImplementedError)

# The token is not usable by this session any more, and so its login is gone.
_LOST = frozenset(
    {
        spec.CKR_DEVICE_REMOVED,
        spec.CKR_SESSION_CLOSED,
        spec.CKR_SESSION_HANDLE_INVALID,
        spec.CKR_TOKEN_NOT_PRESENT,
        spec.CKR_TOKEN_NOT_RECOGNIZED,
        spec.CKR_USER_NOT_LOGGED_IN,
    }
)


class ModuleError(Exception):
    """A failed call: its CKR_* (0 where the library does not say) and which it was."""

    def __init__(self, rv: int, where: str, *, login_lost: bool = False) -> None:
        super().__init__(where)
        self.rv = rv
        self.where = where
        self.login_lost = login_lost


def error_of(error: BaseException, where: str) -> ModuleError:
    """Return what the library raised as a ModuleError; its text could hold anything: left out."""
    if isinstance(error, CryptokiError):
        return ModuleError(error.rv, error.call)
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


class _Library(_pkcs11.lib):
    """The library on a module that the sidecar has initialised."""

    def initialize(self) -> None:
        pass


class _Pin:
    """Lets the library hand our bytearray to C_Login: it calls `encode` on its PIN."""

    def __init__(self, pin: bytearray) -> None:
        self._pin = pin

    def encode(self, _encoding: str) -> bytearray:
        return self._pin


@dataclass(slots=True)
class _Open:
    """What is open on one slot."""

    anchor: int | None = None
    session: Any = None
    keys: dict[tuple[int, bytes], list[tuple[bytes, Any]]] = field(default_factory=dict)


class Module:
    """A loaded, initialised module. Raises ModuleError; OSError when it cannot be loaded."""

    def __init__(self, path: str, parameters: str) -> None:
        self._cryptoki = Cryptoki(path)
        self._cryptoki.initialize(parameters)
        try:
            self._library = _Library(path)
        except _TROUBLE as error:
            raise error_of(error, "C_GetInfo") from None
        self._open: dict[int, _Open] = {}
        self._events = self._polls = 0
        self._polled: Polled | None = None

    # -- looking -----------------------------------------------------------------------------

    def poll(self) -> Polled:
        """Tell which slots have a token. Asks no token anything: no card is woken.

        Each call costs OpenSC milliseconds. Where the module says that no card came or went, and
        there are as many readers as before, the last answer stands, for a few times.
        """
        event = self._cryptoki.slot_event()
        self._events += event is True
        polled, self._polls = self._polled, self._polls + 1
        trusted = polled is not None and event is False and self._polls % _FULL_POLL
        if polled is not None and trusted and self._cryptoki.slot_count() == len(polled.slots):
            return polled
        slots = tuple((slot, self._slot_flags(slot)) for slot in self._cryptoki.slots())
        self._polled = Polled(self._events, slots)
        return self._polled

    def _slot_flags(self, slot: int) -> int:
        try:
            return self._cryptoki.slot_flags(slot)
        except CryptokiError:
            return 0

    def look(self, *, objects: bool) -> tuple[SlotInfo, ...]:
        """List every slot; one that fails says why in its `rv` and does not hide the others."""
        return tuple(self._look_at(slot, objects=objects) for slot in self._cryptoki.slots())

    def _look_at(self, slot: int, *, objects: bool) -> SlotInfo:
        flags = 0
        try:
            flags = self._cryptoki.slot_flags(slot)
            if not flags & spec.CKF_TOKEN_PRESENT:
                self._forget(slot)
                return SlotInfo(slot, flags)
            raw = self._cryptoki.token(slot)
        except CryptokiError as error:
            return SlotInfo(slot, flags, error.rv)
        logged_in = self._logged_in(slot)
        complete = logged_in or not raw.flags & spec.CKF_LOGIN_REQUIRED
        notes: list[str] = []
        found: tuple[RawObject, ...] = ()
        if objects and raw.flags & spec.CKF_TOKEN_INITIALIZED:
            try:
                found = tuple(self._objects(slot, notes))
            except ModuleError as error:
                notes.append(f"its objects cannot be listed: {error.where}")
                self._drop_session(slot)
        token = replace(raw, complete=complete, objects=found)
        return SlotInfo(slot, flags, 0, logged_in, tuple(notes), token)

    def _objects(self, slot: int, notes: list[str]) -> Iterable[RawObject]:
        """Yield what we read of each object, and note what could not be read."""
        state = self._open.setdefault(slot, _Open())
        session = self._session(slot)
        state.keys.clear()
        for number, wanted in spec.READ.items():
            for thing in self._search(session, number, notes):
                values = _attributes(thing, wanted, notes)
                if number == spec.CKO_PRIVATE_KEY:
                    key_type = int.from_bytes(values.get(spec.CKA_KEY_TYPE, b""), sys.byteorder)
                    named = state.keys.setdefault((key_type, values.get(spec.CKA_ID, b"")), [])
                    named.append((values.get(spec.CKA_LABEL, b""), thing))
                kind = number.to_bytes(struct.calcsize("L"), sys.byteorder)
                yield RawObject(((spec.CKA_CLASS, kind), *values.items()))
        if state.anchor is None:
            # Nothing of ours stays open on a token that nobody is logged in to.
            self._drop_session(slot)

    def _search(self, session: Any, number: int, notes: list[str]) -> list[Any]:
        """Return the objects of one class, as far as the module lists them."""
        found = []
        try:
            template = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass(number)}
            for thing in session.get_objects(template):
                found.append(thing)  # noqa: PERF402 - what came before a failure is kept
        except _TROUBLE as error:
            where = error_of(error, "listing stopped early").where
            notes.append(f"objects may be missing: {where}")
        return found

    # -- the login ---------------------------------------------------------------------------

    def _logged_in(self, slot: int) -> bool:
        state = self._open.get(slot)
        if state is None or state.anchor is None:
            return False
        try:
            there = self._cryptoki.logged_in(state.anchor)
        except CryptokiError:
            there = False
        if not there:
            self._forget(slot)
        return there

    def login(self, message: Login) -> None:
        """C_Login, exactly once or, when the slot does not hold that token, not at all."""
        slot = message.slot
        try:
            if self._cryptoki.token(slot).identity != message.token:
                raise ModuleError(spec.CKR_TOKEN_NOT_PRESENT, "C_Login", login_lost=True)
            # A login that is left over would take any PIN for the right one.
            self._logout(slot)
            anchor = self._cryptoki.open_session(slot)
            self._open[slot] = _Open(anchor)
            if self._cryptoki.logged_in(anchor):
                self._cryptoki.logout(anchor)
            self._cryptoki.login(anchor, message.pin)
        except CryptokiError as error:
            self._forget(slot)
            raise error_of(error, "C_Login") from None

    def logout(self, slot: int) -> None:
        """C_Logout and close everything of the slot. What fails is gone anyway."""
        self._logout(slot)

    def _logout(self, slot: int) -> None:
        state = self._open.get(slot)
        if state is not None and state.anchor is not None:
            with suppress(CryptokiError):
                self._cryptoki.logout(state.anchor)
        self._forget(slot)

    def _forget(self, slot: int) -> None:
        """Close what is open on the slot, as far as that still works, and drop every handle."""
        self._drop_session(slot)
        state = self._open.pop(slot, None)
        if state is not None and state.anchor is not None:
            with suppress(CryptokiError):
                self._cryptoki.close_session(state.anchor)

    def _drop_session(self, slot: int) -> None:
        state = self._open.get(slot)
        if state is None:
            return
        session, state.session = state.session, None
        state.keys.clear()
        if session is not None:
            with suppress(*_TROUBLE):
                session.close()

    def _session(self, slot: int) -> Any:
        """Return the session for everything but the login, opened without a PIN."""
        state = self._open.setdefault(slot, _Open())
        if state.session is None:
            try:
                token = next(s for s in self._library.get_slots() if s.slot_id == slot).get_token()
                state.session = token.open(attribute_mapper=_RawAttributes())
            except StopIteration:
                raise ModuleError(spec.CKR_TOKEN_NOT_PRESENT, "C_OpenSession") from None
            except _TROUBLE as error:
                raise error_of(error, "C_OpenSession") from None
        return state.session

    # -- private keys ------------------------------------------------------------------------

    def operate(self, message: Operate) -> bytes:
        """Sign, decrypt or derive. The session is thrown away after any failure."""
        try:
            key = self._key(message)
            return _ACTIONS[message.action](key, message)
        except ModuleError as error:
            failure = error
        except _TROUBLE as error:
            failure = error_of(error, message.action.name.lower())
        except AttributeError:
            # The library gives an object the methods that its CKA_SIGN, … allow.
            failure = ModuleError(spec.CKR_KEY_FUNCTION_NOT_PERMITTED, message.action.name.lower())
        state = self._open.get(message.slot)
        had_login = state is not None and state.anchor is not None
        self._drop_session(message.slot)
        # Once another program has reset the card, OpenSC says CKR_GENERAL_ERROR to every signature
        # and still calls the session logged in: only a new login mends that. Mail to decrypt is
        # a stranger's, who must not be able to end a login with it.
        stuck = failure.rv == spec.CKR_GENERAL_ERROR and message.action is Action.SIGN
        if (stuck or failure.rv in _LOST) and had_login:
            self._logout(message.slot)
        failure.login_lost = had_login and not self._logged_in(message.slot)
        raise failure

    def _key(self, message: Operate) -> Any:
        """Return the private key's object, from the last listing under this login."""
        state = self._open.get(message.slot)
        if state is None or not state.keys:
            for _ in self._objects(message.slot, []):
                pass
            state = self._open[message.slot]
        named = state.keys.get((message.key_type, message.id))
        if not named:
            raise ModuleError(spec.CKR_KEY_HANDLE_INVALID, message.action.name.lower())
        return next((thing for label, thing in named if label == message.label), named[0][1])


def _attributes(thing: Any, wanted: tuple[int, ...], notes: list[str]) -> dict[int, bytes]:
    """Read an object's attributes, one by one where reading them together fails."""
    try:
        values: dict[int, Any] = thing.get_attributes(wanted)
    except _TROUBLE:
        values = {}
        for number in wanted:
            try:
                values[number] = thing[number]
            except _TROUBLE:
                continue
        if not values:
            notes.append("an object that cannot be read is skipped")
    return {number: _bytes(value) for number, value in values.items()}


def _bytes(value: Any) -> bytes:
    return bytes([value]) if isinstance(value, bool) else bytes(value)


def _pin_of(message: Operate) -> _Pin | None:
    return None if message.pin is None else _Pin(message.pin)


def _sign(key: Any, message: Operate) -> bytes:
    signature: bytes = key.sign(
        message.data,
        mechanism=_mechanism(message.mechanism),
        mechanism_param=message.parameter or None,
        pin=_pin_of(message),
    )
    return signature


def _decrypt(key: Any, message: Operate) -> bytes:
    plain: bytes = key.decrypt(
        message.data, mechanism=_mechanism(message.mechanism), pin=_pin_of(message)
    )
    return plain


def _derive(key: Any, message: Operate) -> bytes:
    """ECDH without a KDF. Some modules want the point in DER, as CKA_EC_POINT is; some do not."""
    point = message.data
    try:
        return _derive_with(key, message, point)
    except _TROUBLE:
        header = b"\x04" + (
            bytes((len(point),)) if len(point) < _DER_LONG else bytes((0x81, len(point)))
        )
        return _derive_with(key, message, header + point)


def _derive_with(key: Any, message: Operate, point: bytes) -> bytes:
    size = (len(message.data) - 1) // 2
    secret = key.derive_key(
        pkcs11.KeyType.GENERIC_SECRET,
        size * 8,
        mechanism=_mechanism(message.mechanism),
        mechanism_param=(pkcs11.KDF.NULL, None, point),
        capabilities=0,
        template={pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: True},
    )
    try:
        value: bytes = secret[pkcs11.Attribute.VALUE]
    finally:
        with suppress(*_TROUBLE):
            secret.destroy()
    return value


_MECHANISMS: dict[int, Any] = {}


def _mechanism(number: int) -> Any:
    """Return the library's enum member; to make one per call would cost as much as the call."""
    if number not in _MECHANISMS:
        _MECHANISMS[number] = pkcs11.Mechanism(number)
    return _MECHANISMS[number]


_ACTIONS = {Action.SIGN: _sign, Action.DECRYPT: _decrypt, Action.DERIVE: _derive}
