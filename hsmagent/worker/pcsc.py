"""Smart card readers by way of pcscd (PC/SC workgroup, part 5), with libpcsclite and ctypes.

It serves two ends that PKCS#11 does not: to learn which reader has a card without holding that
card, and to send commands to a card. Calls block, some for as long as another program keeps the
card to itself: they belong into a worker, whose deadline ends them. When this process ends in the
middle of a transaction, pcscd resets the card, which ends its login.

    with Pcsc() as pcsc:
        for reader in pcsc.readers():
            ...
        with pcsc.connect(name) as card, card.transaction():
            answer = card.transmit(command)
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import byref, c_char_p, c_long, c_ubyte, c_ulong, c_void_p, create_string_buffer
from dataclasses import dataclass
from typing import Any, Self

from hsmagent.schsm.apdu import Command
from hsmagent.schsm.card import USER_PIN_LENGTHS
from hsmagent.worker import pinpad
from hsmagent.worker.pinpad import CM_IOCTL_GET_FEATURE_REQUEST, Feature

_LIBRARY = "libpcsclite.so.1"

SCARD_E_TIMEOUT = 0x8010000A
SCARD_E_SHARING_VIOLATION = 0x8010000B
SCARD_E_NO_SMARTCARD = 0x8010000C
SCARD_E_NO_SERVICE = 0x8010001D
SCARD_E_SERVICE_STOPPED = 0x8010001E
SCARD_E_NO_READERS_AVAILABLE = 0x8010002E
SCARD_W_UNPOWERED_CARD = 0x80100067
SCARD_W_RESET_CARD = 0x80100068
SCARD_W_REMOVED_CARD = 0x80100069

_SCARD_SCOPE_SYSTEM = 2
_SCARD_SHARE_SHARED = 2
_SCARD_PROTOCOL_ANY = 3  # T=0 or T=1
_SCARD_LEAVE_CARD = 0
_SCARD_STATE_PRESENT = 0x20
_SCARD_STATE_EXCLUSIVE = 0x80
_SCARD_STATE_INUSE = 0x100
_SCARD_STATE_MUTE = 0x200
_FLAGS = 0xFFFF  # the lower half of a reader's event word; the upper half counts insertions
_RV = 0xFFFFFFFF
_LONGEST_ATR = 33
_LONGEST_ANSWER = 65538  # an extended answer and its status word
_LONGEST_CONTROL = 264  # a short answer, and what readers add to it

_MEANINGS = {
    SCARD_E_SHARING_VIOLATION: "another program keeps the card to itself",
    SCARD_E_NO_SMARTCARD: "there is no card in the reader",
    SCARD_E_NO_SERVICE: "the smart card service is not running; start pcscd.socket",
    SCARD_E_SERVICE_STOPPED: "the smart card service was stopped",
    SCARD_W_UNPOWERED_CARD: "the card has no power: take it out and put it in again",
    SCARD_W_RESET_CARD: "another program has reset the card",
    SCARD_W_REMOVED_CARD: "the card was removed",
}


class PcscError(Exception):
    """A call that did not return SCARD_S_SUCCESS."""

    def __init__(self, call: str, rv: int) -> None:
        meaning = _MEANINGS.get(rv)
        super().__init__(f"{meaning} ({rv:08X})" if meaning else f"{call}: {rv:08X}")
        self.call = call
        self.rv = rv


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader at one moment.

    flags: SCARD_STATE_*. insertions: how often cards came and went, so that a swap between two
    looks is noticed. atr: the card's answer to reset, empty where there is no card.
    """

    name: str
    flags: int
    insertions: int
    atr: bytes

    @property
    def has_card(self) -> bool:
        """Whether a card is in it."""
        return bool(self.flags & _SCARD_STATE_PRESENT)

    @property
    def in_use(self) -> bool:
        """Whether programs are connected to its card, beside one another."""
        return bool(self.flags & _SCARD_STATE_INUSE)

    @property
    def exclusive(self) -> bool:
        """Whether one program is connected to its card, and keeps all others out."""
        return bool(self.flags & _SCARD_STATE_EXCLUSIVE)

    @property
    def mute(self) -> bool:
        """Whether there is a card in it that does not answer."""
        return bool(self.flags & _SCARD_STATE_MUTE)


class _ReaderState(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("user", c_void_p),
        ("current", c_ulong),
        ("event", c_ulong),
        ("atr_length", c_ulong),
        ("atr", c_ubyte * _LONGEST_ATR),
    )


class _IoRequest(ctypes.Structure):
    _fields_ = (("protocol", c_ulong), ("length", c_ulong))


_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "SCardEstablishContext": (c_ulong, c_void_p, c_void_p, c_void_p),
    "SCardReleaseContext": (c_long,),
    "SCardListReaders": (c_long, c_char_p, c_void_p, c_void_p),
    "SCardGetStatusChange": (c_long, c_ulong, c_void_p, c_ulong),
    "SCardConnect": (c_long, c_char_p, c_ulong, c_ulong, c_void_p, c_void_p),
    "SCardReconnect": (c_long, c_ulong, c_ulong, c_ulong, c_void_p),
    "SCardDisconnect": (c_long, c_ulong),
    "SCardBeginTransaction": (c_long,),
    "SCardEndTransaction": (c_long, c_ulong),
    "SCardTransmit": (c_long, c_void_p, c_void_p, c_ulong, c_void_p, c_void_p, c_void_p),
    "SCardControl": (c_long, c_ulong, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p),
}


class Pcsc:
    """A connection to pcscd. Raises OSError without libpcsclite, PcscError from every call.

    A connection that ended with pcscd (SCARD_E_NO_SERVICE, SCARD_E_SERVICE_STOPPED) does not come
    back: make another one. The library reads PCSCLITE_CSOCK_NAME once in a process.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(_LIBRARY)
        self._calls: dict[str, Any] = {}
        for name, arguments in _FUNCTIONS.items():
            call = getattr(library, name)
            call.argtypes, call.restype = arguments, c_long
            self._calls[name] = call
        context = c_long()
        self.call("SCardEstablishContext", _SCARD_SCOPE_SYSTEM, None, None, byref(context))
        self._context = context.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(PcscError):
            self.call("SCardReleaseContext", self._context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library; for `Card`."""
        rv = self._calls[name](*arguments) & _RV
        if rv:
            raise PcscError(name, rv)

    def reader_names(self) -> tuple[str, ...]:
        """Return the names of the readers that are there."""
        length = c_ulong()
        try:
            self.call("SCardListReaders", self._context, None, None, byref(length))
            names = create_string_buffer(length.value)
            self.call("SCardListReaders", self._context, None, names, byref(length))
        except PcscError as error:
            if error.rv == SCARD_E_NO_READERS_AVAILABLE:
                return ()
            raise
        raw = names.raw[: length.value].split(b"\0")
        return tuple(name.decode("utf-8", "surrogateescape") for name in raw if name)

    def readers(self) -> tuple[Reader, ...]:
        """Return every reader as it is now. No card is woken, reset or held."""
        return self.wait(tuple(Reader(name, 0, 0, b"") for name in self.reader_names()), 0)

    def wait(self, known: Sequence[Reader], seconds: float) -> tuple[Reader, ...]:
        """Wait until the state of one of these readers changes; return them as they are then.

        After `seconds` they are returned unchanged; with 0 it does not wait. Only `reader_names`
        tells of a reader that came or went.
        """
        if not known:
            return ()
        states = (_ReaderState * len(known))()
        for state, reader in zip(states, known, strict=True):
            state.name = reader.name.encode("utf-8", "surrogateescape")
            state.current = reader.flags | reader.insertions << 16
        milliseconds = int(seconds * 1000)
        try:
            self.call("SCardGetStatusChange", self._context, milliseconds, states, len(known))
        except PcscError as error:
            if error.rv != SCARD_E_TIMEOUT:
                raise
            if seconds:
                return tuple(known)
        return tuple(
            Reader(
                reader.name,
                state.event & _FLAGS & ~2,  # without SCARD_STATE_CHANGED, which is no state
                state.event >> 16,
                bytes(state.atr[: min(state.atr_length, _LONGEST_ATR)]),
            )
            for state, reader in zip(states, known, strict=True)
        )

    def connect(self, reader: str) -> "Card":
        """Connect to the card in a reader, beside the programs that use it already."""
        handle, protocol = c_long(), c_ulong()
        self.call(
            "SCardConnect",
            self._context,
            reader.encode("utf-8", "surrogateescape"),
            _SCARD_SHARE_SHARED,
            _SCARD_PROTOCOL_ANY,
            byref(handle),
            byref(protocol),
        )
        return Card(self, handle.value, protocol.value)


class Card:
    """A card that we are connected to. Raises PcscError."""

    def __init__(self, pcsc: Pcsc, handle: int, protocol: int) -> None:
        self._pcsc = pcsc
        self._handle = handle
        self._protocol = protocol

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The card is left as it is: a reset would break the OpenSC of other programs.
        with suppress(PcscError):
            self._pcsc.call("SCardDisconnect", self._handle, _SCARD_LEAVE_CARD)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep the card to ourselves for the block. Transactions wait for one another."""
        try:
            self._pcsc.call("SCardBeginTransaction", self._handle)
        except PcscError as error:
            if error.rv != SCARD_W_RESET_CARD:
                raise
            # pcscd says this once, after another program has reset the card.
            self._reconnect()
            self._pcsc.call("SCardBeginTransaction", self._handle)
        try:
            yield
        finally:
            with suppress(PcscError):
                self._pcsc.call("SCardEndTransaction", self._handle, _SCARD_LEAVE_CARD)

    def _reconnect(self) -> None:
        protocol = c_ulong()
        self._pcsc.call(
            "SCardReconnect",
            self._handle,
            _SCARD_SHARE_SHARED,
            _SCARD_PROTOCOL_ANY,
            _SCARD_LEAVE_CARD,
            byref(protocol),
        )
        self._protocol = protocol.value

    def transmit(self, command: bytearray) -> bytes:
        """Send one command; return the answer with its status word.

        The library reads the bytearray itself, so that no copy is left behind. The caller wipes it.
        """
        answer = create_string_buffer(_LONGEST_ANSWER)
        length = c_ulong(_LONGEST_ANSWER)
        form = _IoRequest(self._protocol, ctypes.sizeof(_IoRequest))
        self._pcsc.call(
            "SCardTransmit",
            self._handle,
            byref(form),
            (c_ubyte * len(command)).from_buffer(command),
            len(command),
            None,
            answer,
            byref(length),
        )
        if not length.value:  # some readers answer so when the card was pulled out
            raise PcscError("SCardTransmit", SCARD_W_REMOVED_CARD)
        return answer.raw[: length.value]

    def pad(self) -> "PinPad | None":
        """Return the reader's PIN pad, if it has one on which PINs can be typed and changed."""
        try:
            told = pinpad.features(self._control(CM_IOCTL_GET_FEATURE_REQUEST, b""))
        except PcscError:  # most readers do not know this request
            return None
        verify, modify = map(told.get, (Feature.VERIFY_PIN_DIRECT, Feature.MODIFY_PIN_DIRECT))
        if verify is None or modify is None:
            return None
        return PinPad(self._control, verify, modify)

    def _control(self, code: int, said: bytes) -> bytes:
        """Send a command to the reader itself, not to the card; return its answer."""
        answer = create_string_buffer(_LONGEST_CONTROL)
        length = c_ulong()
        self._pcsc.call(
            "SCardControl",
            *(self._handle, code, said, len(said)),
            *(answer, _LONGEST_CONTROL, byref(length)),
        )
        return answer.raw[: length.value]


@dataclass(frozen=True, slots=True)
class PinPad:
    """A reader's PIN pad. Implements `schsm.card.Pad`; raises PcscError."""

    control: Callable[[int, bytes], bytes]
    verify_code: int
    modify_code: int

    def verify(self, command: Command) -> bytes:
        """Have a PIN typed."""
        return self.control(self.verify_code, pinpad.verify(command, USER_PIN_LENGTHS))

    def modify(self, command: Command) -> bytes:
        """Have the old PIN typed, and the new one twice."""
        return self.control(self.modify_code, pinpad.modify(command, USER_PIN_LENGTHS))
