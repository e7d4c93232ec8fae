"""What daemon and worker say to each other: one request, one reply, in order.

Values only; `codec` turns them into bytes.
"""

from dataclasses import dataclass
from enum import IntEnum

from hsmagent.worker.spec import CKF_HW_SLOT, CKF_REMOVABLE_DEVICE

# How many objects a worker tells at most, and how many bytes of them: of one token, and in a reply.
# The daemon reads them in its loop, and the module may be hostile.
OF_A_TOKEN = 1000, 1 << 20
IN_A_REPLY = 3000, 3 << 20

# -- requests --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """List the slots and their tokens; answered by Slots. objects: with each token's objects."""

    objects: bool


@dataclass(frozen=True, slots=True)
class Poll:
    """Say which slots have a token, without asking the tokens; answered by Polled."""


@dataclass(frozen=True, slots=True)
class Login:
    """C_Login as the user, once, if the slot still holds `token` (TokenInfo.identity).

    `pin` None is the PIN pad. Whoever holds the message wipes the PIN.
    """

    slot: int
    token: bytes
    pin: bytearray | None


@dataclass(frozen=True, slots=True)
class Logout:
    """C_Logout, drop every handle of the slot, close its sessions."""

    slot: int


class Action(IntEnum):
    """What to do with a private key."""

    SIGN = 1
    DECRYPT = 2
    DERIVE = 3


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What is to be done with which private key: the same for each signature of one kind.

    The key is named by CKA_KEY_TYPE, CKA_ID and, where several keys share these, its label.
    `parameter` is the mechanism's, as C lays it out.
    """

    action: Action
    key_type: int
    mechanism: int
    id: bytes
    label: bytes
    parameter: bytes = b""

    def __hash__(self) -> int:
        return hash(self.id)  # one field tells most of them apart, and bytes keep their hash


@dataclass(frozen=True, slots=True)
class Operate:
    """A private-key operation.

    data: what is to be signed or decrypted, or the other side's public point for ECDH. pin: for a
    key that wants it for each use (CKU_CONTEXT_SPECIFIC).
    """

    slot: int
    use: KeyUse
    data: bytes
    pin: bytearray | None = None


@dataclass(frozen=True, slots=True)
class PollReaders:
    """Tell the state of the card readers, without holding a card; answered by CardReaders.

    contents: tell what the SmartCard-HSMs hold, too, where asking disturbs no program. seconds: how
    long to wait at most for a state other than the one that was told last.
    """

    contents: bool
    seconds: int = 0


KEPT = (KeyUse,)
"""Classes whose values come again and again: both ends remember them together with their bytes."""

Request = Look | Poll | Login | Logout | Operate | PollReaders


# -- replies ---------------------------------------------------------------------------------


PCSC = b"pcsc"
"""The value of the Done that a worker begins with, if its module speaks to cards through pcscd."""


@dataclass(frozen=True, slots=True)
class Done:
    """It worked. value: the signature, the plaintext or the shared secret; else empty, or PCSC."""

    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work. where: the call; rv: its CKR_*.

    login_lost: the token's login ended with it. With rv 0 it failed outside Cryptoki, and `where`
    says how.
    """

    rv: int
    where: str
    login_lost: bool = False


@dataclass(frozen=True, slots=True)
class RawObject:
    """An object's attributes, as the token gave them: (CKA_*, bytes)."""

    attributes: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """CK_TOKEN_INFO without its padding, and the token's objects if they were asked for.

    complete: the private objects are among the objects, since we are logged in or need no login.
    """

    label: bytes
    manufacturer: bytes
    model: bytes
    serial: bytes
    flags: int
    pin_min: int
    pin_max: int
    complete: bool
    objects: tuple[RawObject, ...] = ()

    @property
    def identity(self) -> bytes:
        """What differs between this token and another one in the same slot."""
        return b"\0".join((self.label, self.manufacturer, self.model, self.serial))


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A slot: its CKF_*, the CKR_* that kept us from its token (or 0), and the token.

    name: CK_SLOT_INFO's slotDescription without its padding; for a card, the reader's name.
    """

    slot: int
    flags: int
    rv: int = 0
    logged_in: bool = False
    notes: tuple[str, ...] = ()
    token: TokenInfo | None = None
    name: bytes = b""

    @property
    def hardware(self) -> bool:
        """Whether the slot is a reader or a device, whose token may come and go."""
        return bool(self.flags & (CKF_REMOVABLE_DEVICE | CKF_HW_SLOT))


@dataclass(frozen=True, slots=True)
class Slots:
    """The answer to Look."""

    slots: tuple[SlotInfo, ...]


@dataclass(frozen=True, slots=True)
class Polled:
    """The answer to Poll: each slot's id and flags.

    events: how many slot events the worker has seen, so that a card that was swapped between two
    polls is noticed.
    """

    events: int
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CardContents:
    """What a SmartCard-HSM holds. objects: the ids of its files and keys, two bytes each.

    label: the file with its label; empty where it was not read, since another program uses the
    card. logged_in: some program is logged in to it.
    """

    objects: bytes
    label: bytes
    logged_in: bool


@dataclass(frozen=True, slots=True)
class CardReader:
    """A card reader at one moment, as pcscd tells it.

    in_use: programs are connected to its card. exclusive: one program is, and keeps it to itself.
    mute: the card does not answer. insertions: how often cards came and went. contents: None where
    they were not asked for or could not be read.
    """

    name: bytes
    has_card: bool
    in_use: bool
    exclusive: bool
    mute: bool
    insertions: int
    contents: CardContents | None = None


@dataclass(frozen=True, slots=True)
class CardReaders:
    """The answer to PollReaders."""

    readers: tuple[CardReader, ...]


Reply = Done | Failed | Slots | Polled | CardReaders
