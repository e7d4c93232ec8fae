"""What a reader with a PIN pad is told, as bytes (PC/SC workgroup, part 10, sections 2.2 to 2.5).

The reader asks the person, puts what was typed into a command that we give it, and hands that to
the card: the PIN never reaches this machine. No I/O.
"""

import struct
from enum import IntEnum

from hsmagent.schsm.apdu import Command

CM_IOCTL_GET_FEATURE_REQUEST = 0x42000D48  # SCARD_CTL_CODE(3400)

_VARIABLE_ASCII = 0x82  # bmFormatString: counted in bytes, from the left, ASCII
_ON_OK = 2  # bEntryValidationCondition: the person ends the PIN by the reader's key for it
_ENGLISH = 0x0409
_OLD_AND_NEW_TWICE = 3  # bConfirmPIN
_FORMAT = 0, 0, _VARIABLE_ASCII, 0, 0  # bTimerOut to bmPINLengthFormat
_FEATURE = struct.Struct(">BBI")
# bTimerOut, bTimerOut2, bmFormatString, bmPINBlockString, bmPINLengthFormat, wPINMaxExtraDigit (the
# most, the least), bEntryValidationCondition, bNumberMessage, wLangId, bMsgIndex, bTeoPrologue,
# ulDataLength
_VERIFY = struct.Struct("<5B2BBBHB3sI")
# The same, with bInsertionOffsetOld and bInsertionOffsetNew before the lengths, bConfirmPIN behind
# them, and three messages.
_MODIFY = struct.Struct("<5B2B2BBBBH3B3sI")


class Feature(IntEnum):
    """The features of a reader that we use (section 2.2)."""

    VERIFY_PIN_DIRECT = 0x06
    MODIFY_PIN_DIRECT = 0x07


def features(raw: bytes) -> dict[int, int]:
    """Return the control code of each feature that a reader says it has.

    raw: the answer to CM_IOCTL_GET_FEATURE_REQUEST. Reading ends at the first malformed entry.
    """
    found: dict[int, int] = {}
    for at in range(0, len(raw) - _FEATURE.size + 1, _FEATURE.size):
        tag, length, code = _FEATURE.unpack_from(raw, at)
        if length != struct.calcsize(">I"):
            break
        found[tag] = code
    return found


def verify(command: Command, lengths: range) -> bytes:
    """Return PIN_VERIFY_STRUCTURE: the person types a PIN of one of these lengths."""
    apdu = _empty(command)
    sizes = lengths[-1], lengths[0]
    messages = 1, _ENGLISH, 0
    return _VERIFY.pack(*_FORMAT, *sizes, _ON_OK, *messages, bytes(3), len(apdu)) + apdu


def modify(command: Command, lengths: range) -> bytes:
    """Return PIN_MODIFY_STRUCTURE: the person types the old PIN, and the new one twice."""
    apdu = _empty(command)
    sizes = 0, 0, lengths[-1], lengths[0], _OLD_AND_NEW_TWICE
    messages = 3, _ENGLISH, 0, 1, 2
    return _MODIFY.pack(*_FORMAT, *sizes, _ON_OK, *messages, bytes(3), len(apdu)) + apdu


def _empty(command: Command) -> bytes:
    """Return the command with a length of zero, which the reader replaces with the PIN's."""
    return bytes((command.cla, command.ins, command.p1, command.p2, 0))
