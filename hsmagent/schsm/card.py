"""The commands of a SmartCard-HSM: from method calls to APDUs, from answers to frozen values.

It knows nothing of readers, and is given a function that carries a command to the card.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe
from hsmagent.schsm import cvc
from hsmagent.schsm.apdu import INS, MOST_ANSWER, SW, Command, split
from hsmagent.schsm.tlv import fields, tlv

Transmit = Callable[[bytearray], bytes]
"""Carries one command to the card and returns its answer."""

ATR = bytes.fromhex("3BFE1800008131FE458031815448534D31738021408107FA")
# The contactless and micro-SD cards have other ATRs, with the same historical bytes.
_HISTORICAL = ATR[9:21]
AID = bytes.fromhex("E82B0601040181C31F0201")

USER_PIN = 0x81  # references of the PINs
USER_PIN_LENGTHS = range(6, 16)
SO_PIN = 0x88
SO_PIN_RESETS_USER_PIN = 0x01  # an option of INITIALIZE

DEVICE_CERTIFICATE = 0x2F02
TOKEN_INFO = 0x2F03
# High bytes of the ids of files; the low one is the object's number.
PRIVATE_KEY_DESCRIPTION = 0xC4
CERTIFICATE_DESCRIPTION = 0xC8
DATA_DESCRIPTION = 0xC9
CA_CERTIFICATE = 0xCA
PRIVATE_KEY = 0xCC
PROTECTED_DATA = 0xCD
END_ENTITY = 0xCE  # a certificate, or the card's own request until there is one
DATA = 0xCF

_MOST_KEYS = 255
_PIECE = 200  # bytes written with one command
_READ = 256
_FILE = 0x10000  # offsets have two bytes
_TRIES = 0x0F
_OFFSET, _CONTENT = 0x54, 0x53
_APPLICATION = 0x85
_WRAP, _UNWRAP = 0x92, 0x93


class Pad(Protocol):
    """A reader with a PIN pad: it puts the typed PIN into a command, and sends that to the card."""

    def verify(self, command: Command) -> bytes:
        """Have a PIN typed; return the card's answer, or the reader's."""

    def modify(self, command: Command) -> bytes:
        """Have the old PIN typed, and the new one twice; return the answer as `verify` does."""


class CardError(Exception):
    """The card refused an instruction, with this status word."""

    def __init__(self, ins: int, sw: int) -> None:
        super().__init__(f"{INS(ins).name}: {sw:04X}")
        self.ins = ins
        self.sw = sw


@dataclass(frozen=True, slots=True)
class PinStatus:
    """A PIN: whether it is set, how many tries are left (0: blocked), and whether it is in use.

    tries: None while some program is logged in with the PIN, since the card does not tell then.
    """

    is_set: bool
    tries: int | None = None
    logged_in: bool = False


@dataclass(frozen=True, slots=True)
class DkekStatus:
    """The DKEK, which wraps keys: its number of shares, those still missing, its check value."""

    shares: int
    missing: int
    kcv: bytes


@dataclass(frozen=True, slots=True)
class Applet:
    """The answer to SELECT: the version, and the options (such as SO_PIN_RESETS_USER_PIN)."""

    version: tuple[int, int]
    options: int


@dataclass(frozen=True, slots=True)
class Initialization:
    """What INITIALIZE sets. so_pin: the present one, 8 bytes. shares: of the DKEK; None: no backup.

    Whoever holds it wipes the PINs.
    """

    pin: bytearray
    so_pin: bytearray
    tries: int
    shares: int | None


class SmartCardHsm:
    """One card. Its methods raise CardError, ProtocolError, and whatever `transmit` raises.

    pad: the reader's PIN pad, if it has one: a PIN that is None is typed there.
    """

    def __init__(self, transmit: Transmit, pad: Pad | None = None) -> None:
        self._transmit = transmit
        self._pad = pad

    def _run(self, command: Command, secret: bytearray | None = None) -> bytes:
        """Carry out one command and return the answer's data. Raises CardError when it fails."""
        data, sw = self._answer(command, secret)
        if sw != SW.OK:
            raise CardError(command.ins, sw)
        return data

    def _answer(self, command: Command, secret: bytearray | None = None) -> tuple[bytes, int]:
        raw = command.encode(secret)
        try:
            return split(self._transmit(raw))
        finally:
            wipe(raw)

    def _typed(self, command: Command, typed: Callable[[Pad, Command], bytes]) -> None:
        """Carry out one command with what a person types on the reader."""
        if self._pad is None:
            raise ProtocolError("the reader has no PIN pad")
        _, sw = split(typed(self._pad, command))
        if sw != SW.OK:
            raise CardError(command.ins, sw)

    # -- the applet ------------------------------------------------------------------------

    def select(self) -> Applet:
        """Select the application. That ends every login to the card."""
        answer = self._run(Command(0, INS.SELECT, 0x04, 0, AID, _READ))
        try:
            about = next(iter(fields(answer).values()), b"")
            version = fields(about).get(_APPLICATION, b"")
        except ValueError:
            version = b""
        if len(version) < 2:  # noqa: PLR2004 - options at least
            raise ProtocolError("the card does not answer as a SmartCard-HSM does")
        return Applet((version[-2], version[-1]), int.from_bytes(version[:2], "big"))

    def free_memory(self) -> int:
        """Return the free bytes."""
        return int.from_bytes(self._run(Command(0x80, INS.INITIALIZE, 0, 0, b"", 8))[:4], "big")

    def serial(self) -> str:
        """Return the serial number, by which the device's certificate names the card."""
        try:
            return cvc.read(self.read(DEVICE_CERTIFICATE)).serial
        except ValueError:
            raise ProtocolError("the card's own certificate cannot be read") from None

    def initialize(self, wanted: Initialization) -> None:
        """Erase the card and set it up. A wrong SO-PIN costs one of its tries."""
        objects = bytearray(tlv(0x80, SO_PIN_RESETS_USER_PIN.to_bytes(2, "big")))
        for tag, pin in ((0x81, wanted.pin), (0x82, wanted.so_pin)):
            objects += bytes((tag, len(pin)))
            objects += pin
        objects += tlv(0x91, bytes([wanted.tries]))
        if wanted.shares is not None:
            objects += tlv(0x92, bytes([wanted.shares]))
        try:
            self._run(Command(0x80, INS.INITIALIZE, 0, 0), objects)
        finally:
            wipe(objects)

    # -- PINs ------------------------------------------------------------------------------

    def pin_status(self, reference: int) -> PinStatus:
        """Ask for a PIN's tries. Costs none."""
        _, sw = self._answer(Command(0, INS.VERIFY, 0, reference))
        if sw == SW.OK:
            return PinStatus(is_set=True, logged_in=True)
        if sw & ~_TRIES == SW.WRONG_PIN:
            return PinStatus(is_set=True, tries=sw & _TRIES)
        if sw == SW.PIN_BLOCKED:
            return PinStatus(is_set=True, tries=0)
        if sw in (SW.REFERENCE_DATA_UNUSABLE, SW.REFERENCE_NOT_FOUND):
            return PinStatus(is_set=False)
        raise CardError(INS.VERIFY, sw)

    def verify(self, pin: bytearray | None) -> None:
        """Log in as the user. A wrong PIN costs a try. None: it is typed on the reader."""
        command = Command(0, INS.VERIFY, 0, USER_PIN)
        if pin is None:
            self._typed(command, lambda pad, command: pad.verify(command))
        else:
            self._run(command, pin)

    def change_on_pad(self) -> None:
        """Set a new user PIN; it and the old one are typed on the reader."""
        command = Command(0, INS.CHANGE_REFERENCE_DATA, 0, USER_PIN)
        self._typed(command, lambda pad, command: pad.modify(command))

    def change(self, reference: int, old: bytearray, new: bytearray) -> None:
        """Set a new PIN. A wrong old one costs a try. The card knows where the old one ends."""
        self._with_both(INS.CHANGE_REFERENCE_DATA, reference, old, new)

    def unblock(self, so_pin: bytearray, pin: bytearray) -> None:
        """Set a new user PIN with all its tries. A wrong SO-PIN costs one of its own."""
        self._with_both(INS.RESET_RETRY_COUNTER, USER_PIN, so_pin, pin)

    def _with_both(self, ins: INS, reference: int, first: bytearray, second: bytearray) -> None:
        both = first + second
        try:
            self._run(Command(0, ins, 0, reference), both)
        finally:
            wipe(both)

    # -- files -----------------------------------------------------------------------------

    def objects(self) -> tuple[int, ...]:
        """Return the ids of all files and keys. Needs no login and disturbs none."""
        answer = self._run(Command(0x80, INS.ENUMERATE_OBJECTS, 0, 0, b"", MOST_ANSWER))
        if len(answer) % 2:
            raise ProtocolError("the card's list of objects is cut short")
        return tuple(int.from_bytes(answer[at : at + 2], "big") for at in range(0, len(answer), 2))

    def read(self, file: int) -> bytes:
        """Return the content of a file."""
        content = b""
        while len(content) < _FILE:
            where = tlv(_OFFSET, len(content).to_bytes(2, "big"))
            command = Command(0, INS.READ_BINARY, file >> 8, file & 0xFF, where, _READ)
            data, sw = self._answer(command)
            if sw == SW.WRONG_OFFSET and content:
                break
            if sw not in (SW.OK, SW.END_OF_FILE):
                raise CardError(INS.READ_BINARY, sw)
            content += data
            if sw == SW.END_OF_FILE or not data:
                break
        return content

    def write(self, file: int, content: bytes) -> None:
        """Give a file this content. An old file is deleted first, since files never get shorter."""
        self.delete(file)
        for at in range(0, max(1, len(content)), _PIECE):
            where = tlv(_OFFSET, at.to_bytes(2, "big"))
            piece = tlv(_CONTENT, content[at : at + _PIECE])
            self._run(Command(0, INS.UPDATE_BINARY, file >> 8, file & 0xFF, where + piece))

    def delete(self, file: int) -> bool:
        """Delete a file or, by the file's id, a private key. Returns whether it was there."""
        name = file.to_bytes(2, "big")
        _, sw = self._answer(Command(0, INS.DELETE_FILE, 0x02, 0, name))
        if sw not in (SW.OK, SW.FILE_NOT_FOUND):
            raise CardError(INS.DELETE_FILE, sw)
        return sw == SW.OK

    # -- the key that wraps keys -----------------------------------------------------------

    def dkek(self) -> DkekStatus | None:
        """Return the state of the DKEK; None: the card was initialised without one."""
        return self._key_domain()

    def import_share(self, share: bytearray) -> DkekStatus | None:
        """Give the card one share, 32 bytes. It takes a wrong one: only the check value tells."""
        return self._key_domain(share)

    def _key_domain(self, share: bytearray | None = None) -> DkekStatus | None:
        data, sw = self._answer(Command(0x80, INS.KEY_DOMAIN, 0, 0, b"", _READ), share)
        if sw in (SW.INS_NOT_SUPPORTED, SW.REFERENCE_NOT_FOUND):
            return None
        if sw != SW.OK:
            raise CardError(INS.KEY_DOMAIN, sw)
        if len(data) < 10:  # noqa: PLR2004 - two counts and the check value
            raise ProtocolError("the card's answer about its DKEK is cut short")
        return DkekStatus(data[0], data[1], data[2:10])

    def wrap(self, number: int) -> bytes:
        """Return a private key, wrapped. Needs the login."""
        return self._run(Command(0x80, INS.WRAP_KEY, number, _WRAP, b"", MOST_ANSWER))

    def unwrap(self, number: int, blob: bytes) -> None:
        """Put a wrapped private key in a free place. Needs the login."""
        self._run(Command(0x80, INS.UNWRAP_KEY, number, _UNWRAP, blob))


def is_smartcard_hsm(atr: bytes) -> bool:
    """Whether a card with this answer to reset is a SmartCard-HSM."""
    return _HISTORICAL in atr


def file_id(high: int, low: int) -> int:
    """Return the id of the file of object number `low`."""
    return high << 8 | low


def key_numbers(objects: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of the private keys among these files; 0 is the device's own."""
    return tuple(each & 0xFF for each in objects if each >> 8 == PRIVATE_KEY and each & 0xFF)


def free_number(objects: tuple[int, ...]) -> int:
    """Return the first number that no key has, and no file that a key left behind; 0: none."""
    taken = {
        each & 0xFF
        for each in objects
        if each >> 8 in (PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, END_ENTITY)
    }
    return next((number for number in range(1, _MOST_KEYS + 1) if number not in taken), 0)
