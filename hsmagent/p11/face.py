"""The calls of PKCS#11, as one program makes them: a body in, the body of a reply out.

Everything but the use of a key (`uses`) is answered from memory. A use is answered later, by the
daemon, and meanwhile the program's other threads go on. When a program wants a token that is away,
the daemon is told first, once for each absence, since few programs tell the person: when the
program wants to use the token, and when a program that has used it looks for it. NSS only looks for
it when a person clicks, and does so for each web page as well. The state here belongs to one
program, and ends with its connection.
"""

import os
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hsmagent import MANUFACTURER, __version__
from hsmagent.errors import HsmAgentError
from hsmagent.p11 import mechanisms, rpc
from hsmagent.p11.calls import Call
from hsmagent.p11.mechanisms import MECHANISMS
from hsmagent.p11.objects import Token
from hsmagent.p11.rpc import Attribute, BadCall, Room
from hsmagent.p11.sessions import Sessions, TokenAway
from hsmagent.p11.slots import NO_TOKEN, Slot, Slots
from hsmagent.p11.uses import Handler, Perform, Uses, Values, return_value
from hsmagent.worker import spec

HANDSHAKE = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
CRYPTOKI = (2, 40)
MOST_RANDOM = 1 << 16
# Logins and PINs are the daemon's affair: no LOGIN_REQUIRED, or programs would ask for a PIN.
TOKEN_FLAGS = spec.CKF_TOKEN_INITIALIZED | spec.CKF_USER_PIN_INITIALIZED | spec.CKF_WRITE_PROTECTED
NO_LIMIT, UNKNOWN = 0, 0xFFFFFFFFFFFFFFFF  # CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION

T = TypeVar("T")

_VERSION = tuple(map(int, re.findall(r"\d+", __version__)[:2]))


class Face:
    """The face that one program sees.

    perform: has the daemon carry out a wish. missed: tells the daemon that the program wants a
    token which is away. needed: told when the program looks at slots or tokens. looked: returns
    once the daemon was asked for its tokens.
    """

    def __init__(
        self,
        slots: Slots,
        perform: Perform,
        missed: Callable[[Token], Awaitable[None]],
        needed: Callable[[], None],
        looked: Callable[[], Awaitable[None]],
    ) -> None:
        self._slots = slots
        self._sessions = Sessions(slots)
        self._missed = missed
        self._needed = needed
        self._looked = looked
        self._calls: dict[int, Handler] = {
            Call.C_Initialize: self._initialize,
            Call.C_Finalize: self._finalize,
            Call.C_GetInfo: self._get_info,
            Call.C_GetSlotList: self._get_slot_list,
            Call.C_GetSlotInfo: self._get_slot_info,
            Call.C_GetTokenInfo: self._get_token_info,
            Call.C_GetMechanismList: self._get_mechanism_list,
            Call.C_GetMechanismInfo: self._get_mechanism_info,
            Call.C_OpenSession: self._open_session,
            Call.C_CloseSession: self._close_session,
            Call.C_CloseAllSessions: self._close_all_sessions,
            Call.C_GetSessionInfo: self._get_session_info,
            Call.C_Login: self._login,
            Call.C_Logout: self._logout,
            Call.C_DestroyObject: self._destroy_object,
            Call.C_GetAttributeValue: self._get_attribute_value,
            Call.C_FindObjectsInit: self._find_objects_init,
            Call.C_FindObjects: self._find_objects,
            Call.C_FindObjectsFinal: self._find_objects_final,
            Call.C_GenerateRandom: self._generate_random,
            Call.C_WaitForSlotEvent: self._wait_for_slot_event,
            Call.C_SessionCancel: self._session_cancel,
            **Uses(self._sessions, perform).table(),
        }

    def answer(self, body: bytearray) -> bytes | Awaitable[bytes]:
        """Return the reply to a call, or what gives it later. Never raises for what came."""
        try:
            number = rpc.call_of(body)
            handler = self._calls.get(number)
            if handler is None:
                return rpc.error(spec.CKR_FUNCTION_NOT_SUPPORTED)
            call = Call(number)
            values = handler(*rpc.values_of(call, body))
        except TokenAway as away:
            return self._without_token(away)
        except BadCall as bad:
            return rpc.error(bad.rv)
        if isinstance(values, tuple):
            return rpc.reply(call, values)
        return self._later(call, values)

    def _without_token(self, away: TokenAway) -> bytes | Awaitable[bytes]:
        reply = rpc.error(away.rv)
        return self._told(away.slot, reply) if self._sessions.is_first_miss(away.slot) else reply

    async def _told(self, slot: Slot, reply: T) -> T:
        await self._missed(slot.token)  # before the reply, after which many programs end
        return reply

    async def _later(self, call: Call, values: Awaitable[Values]) -> bytes:
        try:
            return rpc.reply(call, await values)
        except BadCall as bad:
            return rpc.error(bad.rv)
        except HsmAgentError as error:
            return rpc.error(return_value(error))

    # -- the whole ---------------------------------------------------------------------------

    def _initialize(self, handshake: bytes, _: int, __: bytes) -> Values | Awaitable[Values]:
        if handshake != HANDSHAKE:
            raise BadCall(spec.CKR_ARGUMENTS_BAD)
        return self._first_look()

    async def _first_look(self) -> Values:
        await self._looked()
        return ()

    def _finalize(self) -> Values:
        self._sessions.close_all()
        return ()

    def _get_info(self) -> Values:
        return CRYPTOKI, _padded(MANUFACTURER, 32), 0, _padded("hsmagent", 32), _VERSION

    def _wait_for_slot_event(self, flags: int) -> Values:
        if flags & spec.CKF_DONT_BLOCK:
            raise BadCall(spec.CKR_NO_EVENT)
        raise BadCall(spec.CKR_FUNCTION_NOT_SUPPORTED)  # programs then poll the slots instead

    # -- slots and tokens --------------------------------------------------------------------

    def _get_slot_list(self, present: int, room: int) -> Values:
        self._needed()
        return (_list(self._slots.numbers(present=bool(present)), room),)

    def _get_slot_info(self, number: int) -> Values | Awaitable[Values]:
        self._needed()
        slot = self._sessions.slot(number)
        flags = spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT
        if slot.insertion:
            flags |= spec.CKF_TOKEN_PRESENT
        label = "empty" if slot.token is NO_TOKEN else slot.token.label
        names = _padded(f"hsmagent: {label}", 64), _padded(MANUFACTURER, 32)
        info = (*names, flags, _VERSION, _VERSION)
        return self._told(slot, info) if self._sessions.is_first_look_for(slot) else info

    def _get_token_info(self, number: int) -> Values:
        token = self._sessions.slot_with_token(number).token
        return (
            _padded(token.label, 32),
            _padded(token.manufacturer, 32),
            _padded(token.model, 16),
            _padded(token.serial, 16),
            TOKEN_FLAGS,
            *(NO_LIMIT, UNKNOWN, NO_LIMIT, UNKNOWN),  # sessions: most and now; read/write likewise
            *(255, 0),  # a PIN's length, most and least: any PIN is accepted
            *(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
            *((0, 0), (0, 0)),
            _padded("", 16),
        )

    def _get_mechanism_list(self, number: int, room: int) -> Values:
        self._sessions.slot_with_token(number)
        return (_list(MECHANISMS, room),)

    def _get_mechanism_info(self, number: int, mechanism: int) -> Values:
        self._sessions.slot_with_token(number)
        return mechanisms.info(mechanism)

    # -- sessions ----------------------------------------------------------------------------

    def _open_session(self, number: int, flags: int) -> Values:
        self._needed()
        if not flags & spec.CKF_SERIAL_SESSION:
            raise BadCall(spec.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
        return (self._sessions.open(number, flags),)

    def _close_session(self, number: int) -> Values:
        self._sessions.close(number)
        return ()

    def _close_all_sessions(self, number: int) -> Values:
        self._sessions.close_all(self._sessions.slot(number))
        return ()

    def _get_session_info(self, number: int) -> Values:
        session = self._sessions.get(number)
        writes = bool(session.flags & spec.CKF_RW_SESSION)
        state = {
            (False, False): spec.CKS_RO_PUBLIC_SESSION,
            (False, True): spec.CKS_RO_USER_FUNCTIONS,
            (True, False): spec.CKS_RW_PUBLIC_SESSION,
            (True, True): spec.CKS_RW_USER_FUNCTIONS,
        }[writes, self._sessions.is_logged_in(session)]
        return session.slot.number, state, session.flags, 0

    def _session_cancel(self, number: int, _: int) -> Values:
        self._sessions.get(number).operation = None
        return ()

    def _login(self, number: int, user: int, _: None) -> Values:
        """Accept any PIN, and do nothing with it: the daemon asks for one when it needs it."""
        session = self._sessions.get(number)
        if user == spec.CKU_SO:
            raise BadCall(spec.CKR_USER_TYPE_INVALID)
        if not self._sessions.login(session) and user == spec.CKU_USER:
            raise BadCall(spec.CKR_USER_ALREADY_LOGGED_IN)
        return ()

    def _logout(self, number: int) -> Values:
        if not self._sessions.logout(self._sessions.get(number)):
            raise BadCall(spec.CKR_USER_NOT_LOGGED_IN)
        return ()

    # -- objects -----------------------------------------------------------------------------

    def _find_objects_init(self, number: int, template: tuple[Attribute, ...]) -> Values:
        session = self._sessions.get(number)
        if session.found is not None:
            raise BadCall(spec.CKR_OPERATION_ACTIVE)
        wanted = {each.type: each.value for each in template if each.value is not None}
        session.found = self._sessions.find(session, wanted)
        return ()

    def _find_objects(self, number: int, room: int) -> Values:
        session = self._sessions.get(number)
        if session.found is None:
            raise BadCall(spec.CKR_OPERATION_NOT_INITIALIZED)
        given, session.found = session.found[:room], session.found[room:]
        return (tuple(given),)

    def _find_objects_final(self, number: int) -> Values:
        session = self._sessions.get(number)
        if session.found is None:
            raise BadCall(spec.CKR_OPERATION_NOT_INITIALIZED)
        session.found = None
        return ()

    def _get_attribute_value(self, number: int, handle: int, rooms: tuple[Room, ...]) -> Values:
        shown = self._sessions.object(self._sessions.get(number), handle)
        rv = spec.CKR_OK
        told = []
        for room in rooms:
            attribute = Attribute(
                room.type, shown.attributes.get(room.type), size_only=not room.size
            )
            if attribute.value is None:
                hidden = shown.hides(room.type)
                rv = spec.CKR_ATTRIBUTE_SENSITIVE if hidden else spec.CKR_ATTRIBUTE_TYPE_INVALID
            elif 0 < room.size < rpc.size_of(attribute):
                attribute = Attribute(room.type)
                rv = spec.CKR_BUFFER_TOO_SMALL
            told.append(attribute)
        return tuple(told), rv

    def _destroy_object(self, number: int, handle: int) -> Values:
        self._sessions.destroy(self._sessions.get(number), handle)
        return ()

    def _generate_random(self, number: int, room: int) -> Values:
        self._sessions.get(number)
        if room > MOST_RANDOM:
            raise BadCall(spec.CKR_ARGUMENTS_BAD)
        return (os.urandom(room),)


def _list(numbers: tuple[int, ...], room: int) -> tuple[int, ...] | int:
    """Return a list, or its length for a program that has too little room."""
    return numbers if len(numbers) <= room else len(numbers)


def _padded(text: str, size: int) -> bytes:
    """Return text as structures such as CK_INFO have it: cut to size, and filled with blanks."""
    return text.encode()[:size].decode(errors="ignore").encode().ljust(size)
