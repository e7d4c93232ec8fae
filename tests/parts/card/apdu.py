"""Commands and status words of ISO 7816-4, short and extended."""

from dataclasses import dataclass
from enum import IntEnum


class SW(IntEnum):
    """Status words that the card answers with."""

    OK = 0x9000
    END_OF_FILE = 0x6282
    WRONG_PIN = 0x63C0  # the last digit counts the tries left
    WRONG_LENGTH = 0x6700
    NOT_LOGGED_IN = 0x6982
    PIN_BLOCKED = 0x6983
    REFERENCE_DATA_UNUSABLE = 0x6984
    CONDITIONS_NOT_MET = 0x6985
    WRONG_DATA = 0x6A80
    FILE_NOT_FOUND = 0x6A82
    WRONG_P1P2 = 0x6A86
    REFERENCE_NOT_FOUND = 0x6A88
    EXISTS = 0x6A89
    WRONG_OFFSET = 0x6B00
    INS_NOT_SUPPORTED = 0x6D00
    INTERNAL = 0x6F00


class INS(IntEnum):
    """Instructions, in the spelling of the standard or of the SmartCard-HSM's driver."""

    VERIFY = 0x20
    CHANGE_REFERENCE_DATA = 0x24
    RESET_RETRY_COUNTER = 0x2C
    GENERATE_KEY_PAIR = 0x46
    INITIALIZE = 0x50
    ENUMERATE_OBJECTS = 0x58
    DECIPHER = 0x62
    SIGN = 0x68
    GET_CHALLENGE = 0x84
    SELECT = 0xA4
    READ_BINARY = 0xB1
    UPDATE_BINARY = 0xD7
    DELETE_FILE = 0xE4


class Answer(Exception):
    """Ends a command with a status word other than 9000, and perhaps data."""

    def __init__(self, sw: int, data: bytes = b"") -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw
        self.data = data


@dataclass(frozen=True, slots=True)
class Command:
    """One command APDU. `le` is the most bytes wanted back, 0 for none."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = b""
    le: int = 0

    @property
    def p1p2(self) -> int:
        """Both parameters as one number: often a file id."""
        return self.p1 << 8 | self.p2


def parse(raw: bytes) -> Command:
    """Read a command in any of the seven cases of ISO 7816-3; wrong lengths answer 6700."""
    if len(raw) < 4:
        raise Answer(SW.WRONG_LENGTH)
    head, body = raw[:4], raw[4:]
    data, le = b"", 0
    if len(body) == 1:
        le = body[0] or 0x100
    elif len(body) == 3 and body[0] == 0:
        le = int.from_bytes(body[1:], "big") or 0x10000
    elif body:
        data, rest, wide = _data(body)
        if rest:
            le = int.from_bytes(rest, "big") or (0x10000 if wide else 0x100)
    return Command(head[0], head[1], head[2], head[3], data, le)


def _data(body: bytes) -> tuple[bytes, bytes, bool]:
    """Cut `Lc data [Le]`; says too whether the lengths are extended."""
    wide = body[0] == 0
    start = 3 if wide else 1
    end = start + int.from_bytes(body[:start], "big")
    rest = body[end:]
    if len(body) < end or end == start or len(rest) not in {0, 2 if wide else 1}:
        raise Answer(SW.WRONG_LENGTH)
    return body[start:end], rest, wide
