"""A smart card's commands and answers (ISO 7816-3, section 12; ISO 7816-4), short and extended."""

from dataclasses import dataclass
from enum import IntEnum

from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe

_SW = 2
_SHORT_DATA = 0xFF
SHORT_ANSWER = 0x100
MOST_ANSWER = 0x10000
MOST_DATA = 0xFFFF


class SW(IntEnum):
    """Status words (SW1 SW2) of the card's answers."""

    OK = 0x9000
    # The next four come from a reader with a PIN pad (PC/SC, part 10, section 2.5.1).
    PAD_TIMEOUT = 0x6400
    PAD_CANCELLED = 0x6401
    PAD_PINS_DIFFER = 0x6402
    PAD_PIN_LENGTH = 0x6403
    END_OF_FILE = 0x6282
    WRONG_PIN = 0x63C0  # the last digit counts the tries left
    WRONG_LENGTH = 0x6700
    NOT_LOGGED_IN = 0x6982
    PIN_BLOCKED = 0x6983
    REFERENCE_DATA_UNUSABLE = 0x6984
    CONDITIONS_NOT_MET = 0x6985
    WRONG_DATA = 0x6A80
    FILE_NOT_FOUND = 0x6A82
    NO_MEMORY = 0x6A84
    WRONG_P1P2 = 0x6A86
    REFERENCE_NOT_FOUND = 0x6A88
    EXISTS = 0x6A89
    WRONG_OFFSET = 0x6B00
    INS_NOT_SUPPORTED = 0x6D00
    INTERNAL = 0x6F00


class INS(IntEnum):
    """Instructions, in the spelling of the standard or of OpenSC's driver."""

    VERIFY = 0x20
    CHANGE_REFERENCE_DATA = 0x24
    RESET_RETRY_COUNTER = 0x2C
    GENERATE_KEY_PAIR = 0x46
    INITIALIZE = 0x50
    KEY_DOMAIN = 0x52
    ENUMERATE_OBJECTS = 0x58
    DECIPHER = 0x62
    SIGN = 0x68
    WRAP_KEY = 0x72
    UNWRAP_KEY = 0x74
    GET_CHALLENGE = 0x84
    SELECT = 0xA4
    READ_BINARY = 0xB1
    UPDATE_BINARY = 0xD7
    DELETE_FILE = 0xE4


@dataclass(frozen=True, slots=True)
class Command:
    """One command APDU. `le` is the most bytes wanted back, 0 for none."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    le: int = 0

    def encode(self, secret: bytearray | None = None) -> bytearray:
        """Return the command's bytes, short where both lengths allow it.

        secret: a PIN, which follows the data and which no `Command` should hold. The caller wipes
        it and the result. Raises ProtocolError when the command is too long for any card.
        """
        data = bytearray(self.data)
        data += secret or b""
        if len(data) > MOST_DATA or self.le > MOST_ANSWER:
            raise ProtocolError(f"a command with {len(data)} bytes is too long for a card")
        out = bytearray((self.cla, self.ins, self.p1, self.p2))
        short = len(data) <= _SHORT_DATA and self.le <= SHORT_ANSWER
        size = 1 if short else 2
        if not short:
            out.append(0)
        if data:
            out += len(data).to_bytes(size, "big")
            out += data
        if self.le:
            # The greatest length of each form is written as zero.
            out += (self.le % (SHORT_ANSWER if short else MOST_ANSWER)).to_bytes(size, "big")
        wipe(data)
        return out


def split(answer: bytes) -> tuple[bytes, int]:
    """Cut an answer into its data and its status word. Raises ProtocolError."""
    if len(answer) < _SW:
        raise ProtocolError("the card's answer has no status word")
    return answer[:-_SW], int.from_bytes(answer[-_SW:], "big")
