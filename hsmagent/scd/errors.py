"""Errors as GnuPG has them: numbers of libgpg-error, whose sentences it shows in place of ours."""

from enum import IntEnum

from hsmagent.errors import (
    Cancelled,
    HsmAgentError,
    LoginNeeded,
    PinError,
    PinLocked,
    Refused,
    TimedOut,
    TokenError,
    TokenGone,
    Unavailable,
    UsageError,
)

SCD = 6  # GPG_ERR_SOURCE_SCD


class Code(IntEnum):
    """Numbers of libgpg-error (err-codes.h.in), by its names without GPG_ERR_; and its words."""

    GENERAL = 1  # "General error"
    DIGEST_ALGO = 5  # "Invalid digest algorithm"
    NOT_FOUND = 27  # "Not found"
    INV_VALUE = 55  # "Invalid value"
    NO_DATA = 58  # "No data"
    NOT_SUPPORTED = 60  # "Not supported"
    TIMEOUT = 62  # "Timeout"
    BAD_PIN = 87  # "Bad PIN"
    CANCELED = 99  # "Operation cancelled"
    CARD = 108  # "Card error"
    CARD_NOT_PRESENT = 112  # "Card not present"
    NO_SCDAEMON = 119  # "No SmartCard daemon"
    PIN_BLOCKED = 130  # "PIN blocked"
    FORBIDDEN = 251  # "Forbidden"
    ASS_UNKNOWN_CMD = 275  # "Unknown IPC command"
    ASS_PARAMETER = 280  # "IPC parameter error"
    ENODEV = 0x8000 | 80  # "No such device"


class Failed(HsmAgentError):
    """A command failed by the rules of GnuPG's protocol."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: HsmAgentError) -> Code:
    """Return the number whose sentence comes nearest to an error of ours."""
    if isinstance(error, Failed):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.GENERAL)


_CODES: tuple[tuple[type[HsmAgentError], Code], ...] = (
    (Cancelled, Code.CANCELED),
    (TimedOut, Code.TIMEOUT),
    (Refused, Code.FORBIDDEN),
    (TokenGone, Code.CARD_NOT_PRESENT),
    (PinLocked, Code.PIN_BLOCKED),
    (LoginNeeded, Code.BAD_PIN),
    (PinError, Code.BAD_PIN),
    (TokenError, Code.CARD),
    (Unavailable, Code.NO_SCDAEMON),
    (UsageError, Code.INV_VALUE),
)
