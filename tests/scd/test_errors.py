"""Our errors in GnuPG's numbers, and those numbers in its words."""

import ctypes

import pytest

from hsmagent import errors
from hsmagent.scd.errors import Code, Failed, code_of

WORDS = {
    errors.Cancelled: "Operation cancelled",
    errors.TimedOut: "Timeout",
    errors.Refused: "Forbidden",
    errors.TokenGone: "Card not present",
    errors.PinLocked: "PIN blocked",
    errors.PinIncorrect: "Bad PIN",
    errors.LoginNeeded: "Bad PIN",
    errors.WorkerDied: "Card error",
    errors.Unavailable: "No SmartCard daemon",
    errors.NoSuchKey: "Invalid value",
    errors.ProtocolError: "General error",
}


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_gnupg_says_the_right_words(kind: type[errors.HsmAgentError]) -> None:
    library = ctypes.CDLL("libgpg-error.so.0")
    library.gpg_strerror.restype = ctypes.c_char_p
    assert library.gpg_strerror(int(code_of(kind("a sentence")))).decode() == WORDS[kind]


def test_a_failure_has_its_own_number() -> None:
    assert code_of(Failed(Code.NO_DATA, "nothing")) == Code.NO_DATA
