"""The sessions of one program, and what is under way in them."""

from dataclasses import dataclass, field
from itertools import count

from hsmagent.model import Key
from hsmagent.p11.mechanisms import Usage
from hsmagent.p11.objects import Attributes, Object
from hsmagent.p11.rpc import BadCall, Mechanism
from hsmagent.p11.slots import NO_TOKEN, Slot, Slots
from hsmagent.worker import spec

MOST_SESSIONS = 256
MOST_DERIVED = 64
# Bytes of all of a program's messages that are signed part by part.
MOST_HELD = 1 << 20
_DERIVED = 1 << 32  # from here on the handles are those of derived secrets


class TokenAway(BadCall):
    """A call that wanted a token which is away."""

    def __init__(self, rv: int, slot: Slot) -> None:
        super().__init__(rv)
        self.slot = slot


@dataclass(slots=True, eq=False)
class Operation:
    """What C_SignInit or C_DecryptInit has begun. usage: what the mechanism does.

    data: the parts that came so far. result: a result for which the client had too little room.
    """

    usage: Usage
    mechanism: Mechanism
    key: Key
    decrypts: bool = False
    data: bytearray = field(default_factory=bytearray)
    result: bytes | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A session. insertion: the number of the token's insertion, at whose end the session ends.

    found: handles that C_FindObjects has still to return; None while no search is under way.
    """

    number: int
    slot: Slot
    flags: int
    insertion: int
    found: list[int] | None = None
    operation: Operation | None = None
    derived: dict[int, Object] = field(default_factory=dict)


class Sessions:
    """Every session of one program, by number. All methods raise BadCall."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._sessions: dict[int, Session] = {}
        self._numbers = count(1)
        self._derived = count(_DERIVED)
        self._logins: dict[int, int] = {}  # slot: the insertion that the program has logged in to
        self._missed: dict[int, int] = {}  # slot: the absence in which the program wanted its token
        self._used: set[int] = set()  # slots whose keys the program has used, or tried to

    def slot(self, number: int) -> Slot:
        """Return a slot."""
        slot = self._slots.get(number)
        if slot is None:
            raise BadCall(spec.CKR_SLOT_ID_INVALID)
        return slot

    def slot_with_token(self, number: int) -> Slot:
        """Return a slot with a token in it."""
        slot = self.slot(number)
        if not slot.insertion:
            raise BadCall(spec.CKR_TOKEN_NOT_PRESENT)
        return slot

    def is_first_miss(self, slot: Slot) -> bool:
        """Note that the program wants a token that is away.

        Return whether it had not wanted the token before in this absence. Of an empty slot nobody
        knows which token is meant.
        """
        if slot.token is NO_TOKEN:
            return False
        was, self._missed[slot.number] = self._missed.get(slot.number), slot.absence
        return was != slot.absence

    def is_first_look_for(self, slot: Slot) -> bool:
        """Note that the program looks at a slot; return whether it now misses the token.

        A program that never used the token does not miss it: many programs look at every slot.
        """
        looks_for = slot.number in self._used and not slot.insertion
        return looks_for and self.is_first_miss(slot)

    def used(self, slot: Slot) -> None:
        """Note that the program has used a key of this slot's token."""
        self._used.add(slot.number)
        if slot.insertion:
            self._missed.pop(slot.number, None)

    def told_of(self, slot: Slot) -> None:
        """Note that the daemon has told the person that the token is away.

        The daemon may know that before we do.
        """
        self._used.add(slot.number)
        self._missed[slot.number] = slot.absence + bool(slot.insertion)

    def open(self, number: int, flags: int) -> int:
        """Open a session. Raises TokenAway, too."""
        slot = self.slot(number)
        if not slot.insertion:
            raise TokenAway(spec.CKR_TOKEN_NOT_PRESENT, slot)
        if len(self._sessions) >= MOST_SESSIONS:
            raise BadCall(spec.CKR_SESSION_COUNT)
        opened = next(self._numbers)
        self._sessions[opened] = Session(opened, slot, flags, slot.insertion)
        return opened

    def get(self, number: int) -> Session:
        """Return a session; one whose token is gone ends. Raises TokenAway, too."""
        session = self._sessions.get(number)
        if session is None:
            raise BadCall(spec.CKR_SESSION_HANDLE_INVALID)
        if session.insertion != session.slot.insertion:
            del self._sessions[number]
            if not session.slot.insertion:
                raise TokenAway(spec.CKR_DEVICE_REMOVED, session.slot)
            raise BadCall(spec.CKR_DEVICE_REMOVED)
        return session

    def close(self, number: int) -> None:
        """Close a session."""
        session = self._sessions.pop(number, None)
        if session is None:
            raise BadCall(spec.CKR_SESSION_HANDLE_INVALID)
        if not any(other.slot is session.slot for other in self._sessions.values()):
            self._logins.pop(session.slot.number, None)  # as C_CloseSession's section says

    def close_all(self, slot: Slot | None = None) -> None:
        """Close the sessions of a slot, or all of them."""
        for number, session in tuple(self._sessions.items()):
            if slot is None or session.slot is slot:
                self.close(number)

    # -- logins: programs make them, although the daemon asks for PINs -----------------------

    def login(self, session: Session) -> bool:
        """Note that the program has logged in; return whether it had not before."""
        was = self.is_logged_in(session)
        self._logins[session.slot.number] = session.insertion
        return not was

    def logout(self, session: Session) -> bool:
        """Note that the program has logged out; return whether it was logged in."""
        was = self.is_logged_in(session)
        self._logins.pop(session.slot.number, None)
        return was

    def is_logged_in(self, session: Session) -> bool:
        """Whether the program has logged in."""
        return self._logins.get(session.slot.number) == session.insertion

    # -- objects -----------------------------------------------------------------------------

    def object(self, session: Session, handle: int) -> Object:
        """Return an object of the token, or one that the program has derived."""
        found = session.slot.objects.get(handle) or self._derived_of(session).get(handle)
        if found is None:
            raise BadCall(spec.CKR_OBJECT_HANDLE_INVALID)
        return found

    def find(self, session: Session, template: Attributes) -> list[int]:
        """Return the handles of the objects that match."""
        objects = (session.slot.objects, self._derived_of(session))
        return [
            handle for each in objects for handle, shown in each.items() if shown.matches(template)
        ]

    def _derived_of(self, session: Session) -> dict[int, Object]:
        found: dict[int, Object] = {}
        for other in self._sessions.values():
            if other.derived and other.slot is session.slot:
                found |= other.derived
        return found

    def add_derived(self, session: Session, attributes: Attributes) -> int:
        """Add a secret that was derived; it ends with its session."""
        if sum(len(each.derived) for each in self._sessions.values()) >= MOST_DERIVED:
            raise BadCall(spec.CKR_DEVICE_MEMORY)
        handle = next(self._derived)
        session.derived[handle] = Object(attributes)
        return handle

    def destroy(self, session: Session, handle: int) -> None:
        """Destroy a derived secret; nothing of the token is ever destroyed."""
        for other in self._sessions.values():
            if other.slot is session.slot and handle in other.derived:
                del other.derived[handle]
                return
        self.object(session, handle)
        raise BadCall(spec.CKR_ACTION_PROHIBITED)

    def need_room(self, size: int) -> None:
        """Refuse what would be more than one program's messages may be."""
        held = sum(len(each.operation.data) for each in self._sessions.values() if each.operation)
        if held + size > MOST_HELD:
            raise BadCall(spec.CKR_DATA_LEN_RANGE)
