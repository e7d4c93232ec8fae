"""What programs do with keys: sign, decrypt, derive. The daemon carries each of these out."""

from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent import errors
from hsmagent.errors import HsmAgentError, TokenGone
from hsmagent.model import Key, KeyType
from hsmagent.p11 import mechanisms, rpc
from hsmagent.p11.calls import Call
from hsmagent.p11.mechanisms import DECRYPTING, SIGNING, Usage, Wish
from hsmagent.p11.objects import Object
from hsmagent.p11.rpc import CANCEL, Attribute, BadCall, Mechanism
from hsmagent.p11.sessions import Operation, Session, Sessions
from hsmagent.p11.slots import Slot
from hsmagent.worker import spec

# What a program is told of a failure; the daemon tells the person. No program is told that a PIN
# was wrong, or it would ask for another PIN itself.
_RETURN_VALUES = {
    errors.TokenGone: spec.CKR_DEVICE_REMOVED,
    errors.Unavailable: spec.CKR_DEVICE_REMOVED,
    errors.PinLocked: spec.CKR_PIN_LOCKED,
    errors.PinError: spec.CKR_FUNCTION_CANCELED,
    errors.LoginNeeded: spec.CKR_FUNCTION_CANCELED,
    errors.WorkerDied: spec.CKR_DEVICE_ERROR,
    errors.TokenError: spec.CKR_FUNCTION_FAILED,
    errors.Refused: spec.CKR_FUNCTION_CANCELED,
    errors.NoSuchKey: spec.CKR_KEY_HANDLE_INVALID,
    errors.UsageError: spec.CKR_ARGUMENTS_BAD,
}

Perform = Callable[[Key, Wish], Awaitable[bytes]]
Values = tuple[Any, ...]
"""The values of a reply, as the call's signature has them."""
Handler = Callable[..., Values | Awaitable[Values]]
"""Takes the values of a request. Raises BadCall."""


class Uses:
    """The calls that use a key. perform: has the daemon carry out a wish."""

    def __init__(self, sessions: Sessions, perform: Perform) -> None:
        self._sessions = sessions
        self._perform = perform

    def table(self) -> dict[int, Handler]:
        """Return what answers each of these calls."""
        return {
            Call.C_SignInit: self.sign_init,
            Call.C_Sign: self.sign,
            Call.C_SignUpdate: self.sign_update,
            Call.C_SignFinal: self.sign_final,
            Call.C_DecryptInit: self.decrypt_init,
            Call.C_Decrypt: self.decrypt,
            Call.C_DeriveKey: self.derive_key,
        }

    # -- signing -----------------------------------------------------------------------------

    def _begin(
        self, number: int, mechanism: Mechanism, handle: int, usages: dict[int, Usage]
    ) -> Values:
        session = self._sessions.get(number)
        if mechanism == CANCEL:
            session.operation = None
            return ()
        if session.operation is not None:
            raise BadCall(spec.CKR_OPERATION_ACTIVE)
        usage = usages.get(mechanism.type)
        if usage is None:
            raise BadCall(spec.CKR_MECHANISM_INVALID)
        shown, key = _private(session, handle)
        if key.key_type is not usage.key_type:
            raise BadCall(spec.CKR_KEY_TYPE_INCONSISTENT)
        right = spec.CKA_SIGN if usages is SIGNING else spec.CKA_DECRYPT
        if usage.purpose not in shown.allowed or not shown.attributes[right]:
            raise BadCall(spec.CKR_KEY_FUNCTION_NOT_PERMITTED)
        usage.check(mechanism)
        session.operation = Operation(usage, mechanism, key, decrypts=usages is DECRYPTING)
        return ()

    def sign_init(self, number: int, mechanism: Mechanism, handle: int) -> Values:
        """C_SignInit."""
        return self._begin(number, mechanism, handle, SIGNING)

    def sign(self, number: int, data: bytes, room: int) -> Values | Awaitable[Values]:
        """C_Sign."""
        session, operation = self._operation(number, decrypts=False)
        if operation.data:
            raise BadCall(spec.CKR_OPERATION_ACTIVE)  # C_SignUpdate began it: C_SignFinal ends it
        return self._finish(session, operation, data, room)

    def _finish(
        self, session: Session, operation: Operation, data: bytes, room: int
    ) -> Values | Awaitable[Values]:
        """Sign, or return the size of a signature for which there is too little room."""
        size = _signature_size(operation.key)
        if not size <= room < rpc.NULL:
            return (size,)
        session.operation = None
        return self._carry_out(session, operation, data)

    def sign_update(self, number: int, data: bytes) -> Values:
        """C_SignUpdate."""
        session, operation = self._operation(number, decrypts=False)
        try:
            self._sessions.need_room(len(data))
        except BadCall:
            session.operation = None
            raise
        operation.data += data
        return ()

    def sign_final(self, number: int, room: int) -> Values | Awaitable[Values]:
        """C_SignFinal."""
        session, operation = self._operation(number, decrypts=False)
        return self._finish(session, operation, bytes(operation.data), room)

    def _operation(self, number: int, *, decrypts: bool) -> tuple[Session, Operation]:
        session = self._sessions.get(number)
        operation = session.operation
        if operation is None or operation.decrypts is not decrypts:
            raise BadCall(spec.CKR_OPERATION_NOT_INITIALIZED)
        return session, operation

    def _carry_out(
        self, session: Session, operation: Operation, data: bytes
    ) -> Awaitable[tuple[bytes]]:
        wish = operation.usage.make(operation.mechanism, data)
        return self._result(session.slot, operation.key, wish)

    async def _result(self, slot: Slot, key: Key, wish: Wish) -> tuple[bytes]:
        try:
            result = await self._perform(key, wish)
        except TokenGone:  # which the daemon tells the person
            self._sessions.told_of(slot)
            raise
        self._sessions.used(slot)
        return (result,)

    # -- decrypting and deriving -------------------------------------------------------------

    def decrypt_init(self, number: int, mechanism: Mechanism, handle: int) -> Values:
        """C_DecryptInit."""
        return self._begin(number, mechanism, handle, DECRYPTING)

    def decrypt(self, number: int, data: bytes, room: int) -> Values | Awaitable[Values]:
        """C_Decrypt."""
        session, operation = self._operation(number, decrypts=True)
        if not 0 < room < rpc.NULL:
            return (_signature_size(operation.key),)
        session.operation = None
        if operation.result is None or operation.data != data:
            return self._decrypted(session, operation, data, room)
        return self._give(session, operation, operation.result, room)

    async def _decrypted(
        self, session: Session, operation: Operation, data: bytes, room: int
    ) -> Values:
        (plain,) = await self._carry_out(session, operation, data)
        operation.data[:] = data
        return self._give(session, operation, plain, room)

    def _give(self, session: Session, operation: Operation, plain: bytes, room: int) -> Values:
        """Return the plain text; where it has too little room, keep it for the next call."""
        if len(plain) <= room:
            return (plain,)
        if session.operation is None:
            operation.result, session.operation = plain, operation
        return (len(plain),)

    def derive_key(
        self, number: int, mechanism: Mechanism, handle: int, template: tuple[Attribute, ...]
    ) -> Awaitable[Values]:
        """C_DeriveKey: a session object, whose value may be read."""
        session = self._sessions.get(number)
        if mechanism.type != spec.CKM_ECDH1_DERIVE:
            raise BadCall(spec.CKR_MECHANISM_INVALID)
        shown, key = _private(session, handle)
        if not shown.attributes[spec.CKA_DERIVE]:
            raise BadCall(spec.CKR_KEY_FUNCTION_NOT_PERMITTED)
        wanted = {each.type: each.value for each in template}
        length = wanted.get(spec.CKA_VALUE_LEN)
        if not isinstance(length, int):
            raise BadCall(spec.CKR_TEMPLATE_INCOMPLETE)
        if wanted.get(spec.CKA_TOKEN) or wanted.get(spec.CKA_SENSITIVE):
            raise BadCall(spec.CKR_TEMPLATE_INCONSISTENT)
        return self._derived(session, key, mechanisms.derive(mechanism, key, length), wanted)

    async def _derived(
        self, session: Session, key: Key, wish: Wish, wanted: dict[int, rpc.Value | None]
    ) -> Values:
        (secret,) = await self._result(session.slot, key, wish)
        attributes = _DERIVED | {k: v for k, v in wanted.items() if v is not None}
        attributes |= {spec.CKA_VALUE: secret, spec.CKA_EXTRACTABLE: True}
        return (self._sessions.add_derived(self._sessions.get(session.number), attributes),)


_DERIVED: dict[int, rpc.Value] = {
    spec.CKA_CLASS: spec.CKO_SECRET_KEY,
    spec.CKA_KEY_TYPE: spec.CKK_GENERIC_SECRET,
    spec.CKA_TOKEN: False,
    spec.CKA_PRIVATE: False,
    spec.CKA_SENSITIVE: False,
    spec.CKA_ALWAYS_SENSITIVE: False,
    spec.CKA_NEVER_EXTRACTABLE: False,
    spec.CKA_LOCAL: False,
    spec.CKA_LABEL: b"",
    spec.CKA_ID: b"",
}


def return_value(error: HsmAgentError) -> int:
    """Return the CKR_… by which a program learns of an error."""
    for kind in type(error).__mro__:
        if kind in _RETURN_VALUES:
            return _RETURN_VALUES[kind]
    return spec.CKR_DEVICE_ERROR


def _private(session: Session, handle: int) -> tuple[Object, Key]:
    """Return a private key of the session's token. Raises BadCall."""
    shown = session.slot.objects.get(handle)
    if shown is None or shown.key is None:
        raise BadCall(spec.CKR_KEY_HANDLE_INVALID)
    return shown, shown.key


def _signature_size(key: Key) -> int:
    size = (key.bits + 7) // 8
    return size if key.key_type is KeyType.RSA else 2 * size
