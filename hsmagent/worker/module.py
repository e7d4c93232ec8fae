"""One PKCS#11 module inside the worker: its tokens, their logins and private keys.

Its rules, each of which some module has made necessary:

- One *anchor* session per login, opened without a PIN, carries C_Login and C_Logout. Private keys
  are used on another session, which is thrown away after any failure: a failed operation may leave
  a session that does nothing any more.
- Every handle of a slot is dropped with its login. Modules reuse or invalidate them at will.
- Object searches run to their end: a search that is left open blocks its session.
"""

import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from hsmagent.worker import spec
from hsmagent.worker.codec import operation_head
from hsmagent.worker.cryptoki import ModuleError, Signing
from hsmagent.worker.library import TROUBLE, Library, attributes, perform, search
from hsmagent.worker.messages import (
    IN_A_REPLY,
    OF_A_TOKEN,
    Action,
    KeyUse,
    Login,
    Operate,
    Polled,
    RawObject,
    SlotInfo,
)

_FULL_POLL = 4  # in every fourth poll the slots' flags are read, whatever the module says

# This session can no longer use the token, so the login has ended.
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


@dataclass(slots=True)
class _Open:
    """What is open on one slot."""

    anchor: int | None = None
    session: Any = None
    keys: dict[tuple[int, bytes], list[tuple[bytes, Any]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Room:
    """How many more objects, and bytes of them, the daemon takes: of one token, or in one reply.

    around: the room of the whole reply, of which a token's is a part.
    """

    objects: int
    bytes: int
    around: "_Room | None" = None

    def takes(self, size: int) -> bool:
        """Whether one more object of this size is taken; counts it."""
        if not self.objects or size > self.bytes:
            return False
        if self.around is not None and not self.around.takes(size):
            return False
        self.objects, self.bytes = self.objects - 1, self.bytes - size
        return True


class Module:
    """A loaded, initialised module. Raises ModuleError; OSError when it cannot be loaded.

    function_list: the address of its CK_FUNCTION_LIST, for calls that are not made here.
    signings: what signs with keys that have signed, by `codec.operation_head`.
    """

    def __init__(self, path: str, parameters: str) -> None:
        self._library = Library(path, parameters)
        self._cryptoki = self._library.cryptoki
        self.function_list = self._cryptoki.function_list
        self.signings: dict[bytes, Signing] = {}
        self._open: dict[int, _Open] = {}
        self._room = _Room(*IN_A_REPLY)
        self._events = self._polls = 0
        self._polled: Polled | None = None

    # -- looking -----------------------------------------------------------------------------

    def poll(self) -> Polled:
        """Tell which slots have a token. No token is asked, so that no card is woken.

        Each call takes OpenSC milliseconds. So where the module says that no card came or went, and
        there are as many readers as before, the last answer is given again, a few times at most.
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
            return self._cryptoki.slot_info(slot)[0]
        except ModuleError:
            return 0

    def look(self, *, objects: bool) -> tuple[SlotInfo, ...]:
        """List every slot. A slot that fails has the reason in its `rv`; the others are listed."""
        self._room = _Room(*IN_A_REPLY)
        return tuple(self._look_at(slot, objects=objects) for slot in self._cryptoki.slots())

    def _look_at(self, slot: int, *, objects: bool) -> SlotInfo:
        flags, name = 0, b""
        try:
            flags, name = self._cryptoki.slot_info(slot)
            if not flags & spec.CKF_TOKEN_PRESENT:
                self._forget(slot)
                return SlotInfo(slot, flags, name=name)
            raw = self._cryptoki.token(slot)
        except ModuleError as error:
            return SlotInfo(slot, flags, error.rv, name=name)
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
        return SlotInfo(slot, flags, 0, logged_in, tuple(notes), token, name)

    def _objects(self, slot: int, notes: list[str]) -> Iterable[RawObject]:
        """Yield what we read of each object, and note what could not be read."""
        state = self._open.setdefault(slot, _Open())
        session = self._session(slot)
        self._forget_handles(state)
        room, full = _Room(*OF_A_TOKEN, self._room), False
        for number, wanted in spec.READ.items():
            for thing in search(session, number, notes):
                values = attributes(thing, wanted, notes)
                if number == spec.CKO_PRIVATE_KEY:
                    key_type = int.from_bytes(values.get(spec.CKA_KEY_TYPE, b""), sys.byteorder)
                    named = state.keys.setdefault((key_type, values.get(spec.CKA_ID, b"")), [])
                    named.append((values.get(spec.CKA_LABEL, b""), thing))
                full = full or not room.takes(sum(map(len, values.values())))
                if full:
                    continue
                kind = number.to_bytes(struct.calcsize("L"), sys.byteorder)
                yield RawObject(((spec.CKA_CLASS, kind), *values.items()))
        if full:
            notes.append("it has so many objects that the last ones were left out")
        if state.anchor is None:
            # Nothing of ours stays open on a token that nobody is logged in to.
            self._drop_session(slot)

    # -- the login ---------------------------------------------------------------------------

    def _logged_in(self, slot: int) -> bool:
        state = self._open.get(slot)
        if state is None or state.anchor is None:
            return False
        try:
            there = self._cryptoki.logged_in(state.anchor)
        except ModuleError:
            there = False
        if not there:
            self._forget(slot)
        return there

    def login(self, message: Login) -> None:
        """C_Login, exactly once; not at all when the slot does not hold the message's token."""
        slot = message.slot
        try:
            is_there = self._cryptoki.token(slot).identity == message.token
            if is_there:
                self._login(slot, message.pin)
        except ModuleError:
            self._forget(slot)
            raise
        if not is_there:
            raise ModuleError(spec.CKR_TOKEN_NOT_PRESENT, "C_Login", login_lost=True)

    def _login(self, slot: int, pin: bytearray | None) -> None:
        # An earlier login that is still open would make the module take any PIN for the right one.
        self.logout(slot)
        anchor = self._cryptoki.open_session(slot)
        self._open[slot] = _Open(anchor)
        if self._cryptoki.logged_in(anchor):
            self._cryptoki.logout(anchor)
        self._cryptoki.login(anchor, pin)

    def logout(self, slot: int) -> None:
        """C_Logout and close all sessions of the slot. A call that fails had nothing to end."""
        state = self._open.get(slot)
        if state is not None and state.anchor is not None:
            with suppress(ModuleError):
                self._cryptoki.logout(state.anchor)
        self._forget(slot)

    def _forget(self, slot: int) -> None:
        """Close what is open on the slot, as far as that still works, and drop every handle."""
        self._drop_session(slot)
        state = self._open.pop(slot, None)
        if state is not None and state.anchor is not None:
            with suppress(ModuleError):
                self._cryptoki.close_session(state.anchor)

    def _drop_session(self, slot: int) -> None:
        state = self._open.get(slot)
        if state is None:
            return
        session, state.session = state.session, None
        self._forget_handles(state)
        if session is not None:
            with suppress(*TROUBLE):
                session.close()

    def _forget_handles(self, state: _Open) -> None:
        """Drop what is good only as long as a session is open."""
        state.keys.clear()
        self.signings.clear()

    def _session(self, slot: int) -> Any:
        """Return the session for everything but the login, opened without a PIN."""
        state = self._open.setdefault(slot, _Open())
        if state.session is None:
            state.session = self._library.open_session(slot)
        return state.session

    # -- private keys ------------------------------------------------------------------------

    def operate(self, message: Operate) -> bytes:
        """Sign, decrypt or derive. The session is thrown away after any failure."""
        slot, use = message.slot, message.use
        try:
            if use.action is Action.SIGN:
                head = operation_head(slot, use)
                signing = self.signings.get(head) or self._signing(slot, use, head)
                return signing(message.data, message.pin)
            return perform(self._key(slot, use), message)
        except ModuleError as error:
            raise self.failed(slot, use.action, error) from None

    def failed(self, slot: int, action: Action, failure: ModuleError) -> ModuleError:
        """Throw the session away after an operation that failed; return what is to be told."""
        state = self._open.get(slot)
        had_login = state is not None and state.anchor is not None
        self._drop_session(slot)
        # Once another program has reset the card, OpenSC says CKR_GENERAL_ERROR to every signature
        # and still calls the session logged in: only a new login mends that. A failed decryption
        # does not count, since a stranger sent what is decrypted and must not end a login with it.
        stuck = failure.rv == spec.CKR_GENERAL_ERROR and action is Action.SIGN
        if (stuck or failure.rv in _LOST) and had_login:
            self.logout(slot)
        failure.login_lost = had_login and not self._logged_in(slot)
        return failure

    def _signing(self, slot: int, use: KeyUse, head: bytes) -> Signing:
        """Return what signs with a key; it is kept until the session ends."""
        key = self._key(slot, use)
        handles = key.session.handle, key.handle
        signing = self._cryptoki.signing(*handles, use.mechanism, use.parameter)
        self.signings[head] = signing
        return signing

    def _key(self, slot: int, use: KeyUse) -> Any:
        """Return the private key's object, from the last listing under this login."""
        state = self._open.get(slot)
        if state is None or not state.keys:
            for _ in self._objects(slot, []):
                pass
            state = self._open[slot]
        named = state.keys.get((use.key_type, use.id))
        if not named:
            raise ModuleError(spec.CKR_KEY_HANDLE_INVALID, use.action.name.lower())
        return next((thing for label, thing in named if label == use.label), named[0][1])
