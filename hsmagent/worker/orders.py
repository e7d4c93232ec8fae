"""What management says to its own workers: orders to change a token, its PINs and its objects.

Values only. The daemon never sends these, and the workers that it starts refuse them. Attributes
are (CKA_*, bytes as C lays them out). Whoever holds a message wipes its PINs, which are bytearrays.
A PIN that is None is typed on the reader. `token` is TokenInfo.identity.
"""

from dataclasses import dataclass

from hsmagent.worker.messages import RawObject

Attributes = tuple[tuple[int, bytes], ...]

# -- to a worker that holds a PKCS#11 module -------------------------------------------------


@dataclass(frozen=True, slots=True)
class InitToken:
    """C_InitToken; `label` is padded to 32 bytes. Erases what is there."""

    slot: int
    so_pin: bytearray
    label: bytes


@dataclass(frozen=True, slots=True)
class InitPin:
    """Log in as the security officer and set the user's PIN: one C_Login, one C_InitPIN."""

    slot: int
    token: bytes
    so_pin: bytearray
    pin: bytearray


@dataclass(frozen=True, slots=True)
class SetPin:
    """Log in with the old PIN and set a new one; `so`: the security officer's."""

    slot: int
    token: bytes
    so: bool
    old: bytearray | None
    new: bytearray | None


@dataclass(frozen=True, slots=True)
class Generate:
    """C_GenerateKeyPair, under a login."""

    slot: int
    mechanism: int
    public: Attributes
    private: Attributes


@dataclass(frozen=True, slots=True)
class Create:
    """C_CreateObject, under a login."""

    slot: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Change:
    """C_SetAttributeValue of every object that matches."""

    slot: int
    matching: Attributes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Destroy:
    """C_DestroyObject of every object that matches."""

    slot: int
    matching: Attributes


@dataclass(frozen=True, slots=True)
class Find:
    """Read these attributes of every object that matches; answered by Objects."""

    slot: int
    matching: Attributes
    wanted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ListMechanisms:
    """List the token's mechanisms; answered by Mechanisms."""

    slot: int


# -- to a worker that speaks to cards --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListCards:
    """Look at every SmartCard-HSM, without a PIN; answered by Cards."""


@dataclass(frozen=True, slots=True)
class InitializeCard:
    """Erase a card and set it up. `shares` None: without a DKEK, so that backup is ruled out.

    so_pin: the present one, 8 bytes. new_so_pin: the one to set then; empty: it stays.
    """

    serial: str
    so_pin: bytearray
    new_so_pin: bytearray
    pin: bytearray
    tries: int
    shares: int | None
    label: str


@dataclass(frozen=True, slots=True)
class ChangeCardPin:
    """Set a new PIN with the old one; `so`: the security officer's, 8 bytes each."""

    serial: str
    so: bool
    old: bytearray | None
    new: bytearray | None


@dataclass(frozen=True, slots=True)
class UnblockCard:
    """Set the user's PIN, with all its tries, by the SO-PIN."""

    serial: str
    so_pin: bytearray
    pin: bytearray


@dataclass(frozen=True, slots=True)
class ImportShare:
    """Give a card one share of its DKEK, 32 bytes."""

    serial: str
    share: bytearray


@dataclass(frozen=True, slots=True)
class WrapKeys:
    """Read out the keys with these numbers, wrapped; answered by WrappedKeys."""

    serial: str
    pin: bytearray | None
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as a backup holds it (`schsm.backup.Backup`), and its number on the card."""

    number: int
    blob: bytes
    description: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class UnwrapKeys:
    """Put wrapped keys on the card, each under its number."""

    serial: str
    pin: bytearray | None
    keys: tuple[WrappedKey, ...]


@dataclass(frozen=True, slots=True)
class DeleteFiles:
    """Delete files and keys by their ids; one that is not there is no error."""

    serial: str
    pin: bytearray | None
    files: tuple[int, ...]


Order = (
    InitToken
    | InitPin
    | SetPin
    | Generate
    | Create
    | Change
    | Destroy
    | Find
    | ListMechanisms
    | ListCards
    | InitializeCard
    | ChangeCardPin
    | UnblockCard
    | ImportShare
    | WrapKeys
    | UnwrapKeys
    | DeleteFiles
)

# -- their answers, beside Done and Failed ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Objects:
    """The answer to Find."""

    objects: tuple[RawObject, ...]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """CK_MECHANISM_INFO: key sizes in bits (or bytes, as the mechanism has it) and CKF_* flags."""

    number: int
    least: int
    most: int
    flags: int


@dataclass(frozen=True, slots=True)
class Mechanisms:
    """The answer to ListMechanisms."""

    mechanisms: tuple[Mechanism, ...]


@dataclass(frozen=True, slots=True)
class Tries:
    """A PIN of a card, and its tries left: None, since the card does not tell, during a login."""

    is_set: bool
    left: int | None


@dataclass(frozen=True, slots=True)
class CardDkek:
    """The state of a card's DKEK: see `schsm.card.DkekStatus`."""

    shares: int
    missing: int
    kcv: bytes


@dataclass(frozen=True, slots=True)
class CardKey:
    """A key on a card: its number, and the label and CKA_ID in its description, if it has one.

    certified: a certificate has taken the place of the request that the card made with the key.
    """

    number: int
    label: str
    id: bytes
    certified: bool


@dataclass(frozen=True, slots=True)
class CardInfo:
    """A SmartCard-HSM as it is now. objects: the ids of its files and keys.

    pad: its reader has a PIN pad, on which PINs can be typed and changed.
    """

    reader: str
    serial: str
    label: str
    version: str
    free_memory: int
    user: Tries
    so: Tries
    dkek: CardDkek | None
    keys: tuple[CardKey, ...]
    objects: tuple[int, ...]
    pad: bool = False


@dataclass(frozen=True, slots=True)
class Cards:
    """The answer to ListCards. notes: a sentence about each reader that failed."""

    cards: tuple[CardInfo, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WrappedKeys:
    """The answer to WrapKeys."""

    keys: tuple[WrappedKey, ...]


@dataclass(frozen=True, slots=True)
class CardSaid:
    """The card refused an instruction (`schsm.apdu.INS`), with this status word (`SW`)."""

    ins: int
    sw: int


OrderReply = Objects | Mechanisms | Cards | WrappedKeys | CardSaid
