"""A PKCS#11 module that misbehaves on command: faulty.c, built once, and its controls."""

import mmap
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_SOURCE = Path(__file__).with_name("faulty.c")
FOREVER = 2**64 - 1

# Where a function stands in CK_FUNCTION_LIST.
FUNCTIONS = {
    "C_Initialize": 0,
    "C_GetInfo": 2,
    "C_GetSlotList": 4,
    "C_GetSlotInfo": 5,
    "C_GetTokenInfo": 6,
    "C_SetPIN": 11,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_GetSessionInfo": 15,
    "C_Login": 18,
    "C_Logout": 19,
    "C_DestroyObject": 22,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
    "C_FindObjectsFinal": 28,
    "C_DecryptInit": 33,
    "C_Decrypt": 34,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_DeriveKey": 62,
    "C_WaitForSlotEvent": 67,
}
_KNOBS = (
    "unplugged",
    "generation",
    "token_flags",
    "slot_flags",
    "failing_slot",
    "hide_public",
    "odd_type",
    "tries_max",
    "tries_left",
    "wrong_pins",
)
_FAULTS_AT = 16 * 8
_FAULT = struct.Struct("=QQQQQ")
_SIZE = _FAULTS_AT + 68 * _FAULT.size


class Action(IntEnum):
    """What a function does instead of, or after, its work."""

    NOTHING = 0
    RETURN = 1  # the argument, without doing anything
    HANG = 2
    CRASH = 3
    GARBAGE = 4  # works, then says the argument for a length
    LIE = 5  # works, then returns the argument
    WAIT = 6  # until it is healed, and works then


def build(folder: Path) -> Path:
    """Compile the module into `folder`."""
    module = folder / "faulty.so"
    subprocess.run(
        [
            *("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"),
            *("-I/usr/include/p11-kit-1", str(_SOURCE), "-o", str(module), "-ldl"),
        ],
        check=True,
        timeout=60,
    )
    return module


@dataclass(frozen=True, slots=True)
class Faulty:
    """One faulty module's controls; every process that loads it with this `env` obeys them."""

    module: str
    env: tuple[tuple[str, str], ...]
    _state: mmap.mmap

    @classmethod
    def create(
        cls, module: Path, state: Path, real: str, env: tuple[tuple[str, str], ...]
    ) -> "Faulty":
        """Put it in front of the module `real`, which wants `env`."""
        state.write_bytes(bytes(_SIZE))
        with state.open("r+b") as file:
            shared = mmap.mmap(file.fileno(), _SIZE)
        ours = (("FAULTY_MODULE", real), ("FAULTY_STATE", str(state)))
        return cls(str(module), env + ours, shared)

    def get(self, knob: str) -> int:
        """Return one of the knobs of faulty.c's `struct state`."""
        (value,) = struct.unpack_from("=Q", self._state, _KNOBS.index(knob) * 8)
        return int(value)

    def set(self, **knobs: int) -> None:
        """Turn knobs."""
        for knob, value in knobs.items():
            struct.pack_into("=Q", self._state, _KNOBS.index(knob) * 8, value)

    def calls(self, function: str) -> int:
        """Return how often it was called, in all processes together."""
        return int(_FAULT.unpack_from(self._state, self._at(function))[0])

    def strike(
        self, function: str, action: Action, argument: int = 0, *, skip: int = 0, times: int = 1
    ) -> None:
        """Let a function misbehave, after `skip` more calls, `times` times."""
        struct.pack_into(
            "=QQQQ", self._state, self._at(function) + 8, action, argument, skip, times
        )

    def heal(self) -> None:
        """Take back every fault; the counts stay."""
        for function in FUNCTIONS:
            self.strike(function, Action.NOTHING, times=0)

    def unplug(self) -> None:
        """Pull the token out: its sessions and logins are gone for good."""
        self.set(unplugged=1, generation=self.get("generation") + 1)

    def plug(self) -> None:
        """Put it back in."""
        self.set(unplugged=0)

    def reset_card(self) -> None:
        """End every session and login, as another program does that resets the card."""
        self.set(generation=self.get("generation") + 1)

    @staticmethod
    def _at(function: str) -> int:
        return _FAULTS_AT + FUNCTIONS[function] * _FAULT.size


NewFaulty = Callable[[], Faulty]
