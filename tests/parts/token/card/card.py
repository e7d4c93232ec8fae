"""A SmartCard-HSM: commands in, answers out.

Written from the command set that OpenSC's driver uses; the genuine card knows more. Knows
nothing of readers: `vpcd` plugs it into one.
"""

import contextlib
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hsmagent.errors import ProtocolError
from hsmagent.schsm import pkcs15 as described
from hsmagent.schsm.apdu import INS, SW, Command
from hsmagent.schsm.card import (
    AID,
    ATR,
    CA_CERTIFICATE,
    CERTIFICATE_DESCRIPTION,
    DATA,
    DATA_DESCRIPTION,
    DEVICE_CERTIFICATE,
    END_ENTITY,
    PRIVATE_KEY,
    PRIVATE_KEY_DESCRIPTION,
    PROTECTED_DATA,
    SO_PIN,
    SO_PIN_RESETS_USER_PIN,
    TOKEN_INFO,
    USER_PIN,
    file_id,
)
from hsmagent.schsm.tlv import fields, tlv
from tests.parts.token.card import cvc, files, keys, pkcs15
from tests.parts.token.card.answer import Answer
from tests.parts.token.card.commands import p1p2, parse
from tests.parts.token.card.domain import Domain
from tests.parts.token.card.knobs import Knobs, Unplugged
from tests.parts.token.card.pin import Pin

__all__ = ["AID", "ATR", "DEFAULT_PIN", "DEFAULT_SO_PIN", "Card"]

Run = Callable[[Command], bytes]

VERSION = bytes([0xFF, 3, 5])  # generic, 3.5
PAD = 0x85  # asked only whether the card has a way of its own to check the person
WRAP, UNWRAP = 0x92, 0x93

WRAPPED = 0x2F10  # a wrapped key, on its way to the card
LARGEST_CHALLENGE = 1024
FILE_OFFSET = b"\x54\x02"

DEFAULT_PIN = "648219"
DEFAULT_SO_PIN = "3537363231383830"  # 16 hexadecimal digits, as tools want it


class Card:
    """One card. `serial` (11 characters) tells it from others; PINs are the tools' defaults.

    `user` and `so` hold the retry counters, `knobs` the faults and the log. `pad` makes it a card
    with a PIN pad: what a person is going to type there, oldest first. A test reads and turns all
    this from its own thread; commands come in one at a time.
    """

    def __init__(self, serial: str = "DENK0100001", label: str = "card") -> None:
        self.serial = serial
        self.user: Pin | None = Pin(DEFAULT_PIN.encode(), 3)
        self.so: Pin | None = Pin(bytes.fromhex(DEFAULT_SO_PIN), 15)
        self.options = SO_PIN_RESETS_USER_PIN
        self.pad: list[str] | None = None
        self.knobs = Knobs()
        self.files = files.Files()
        self.keys: dict[int, keys.PrivateKey] = {}
        self._device = ec.generate_private_key(ec.BrainpoolP256R1())
        self._holder = serial + "00000"
        self.files.content[DEVICE_CERTIFICATE] = self._device_certificates()
        self.files.content[TOKEN_INFO] = described.token_info(label)
        self.domain: Domain | None = None
        self._selected = False
        self._logged_in = False
        self._commands: dict[tuple[int, int], Run] = {
            (0x00, INS.VERIFY): self._verify,
            (0x00, INS.CHANGE_REFERENCE_DATA): self._change,
            (0x00, INS.RESET_RETRY_COUNTER): self._unblock,
            (0x00, INS.GENERATE_KEY_PAIR): self._generate,
            (0x00, INS.GET_CHALLENGE): self._challenge,
            (0x00, INS.SELECT): self._select,
            (0x00, INS.READ_BINARY): self._read,
            (0x00, INS.UPDATE_BINARY): self._update,
            (0x00, INS.DELETE_FILE): self._delete,
            (0x80, INS.INITIALIZE): self._initialize,
            (0x80, INS.KEY_DOMAIN): self._key_domain,
            (0x80, INS.ENUMERATE_OBJECTS): self._enumerate,
            (0x80, INS.WRAP_KEY): self._wrap,
            (0x80, INS.UNWRAP_KEY): self._unwrap,
            (0x80, INS.SIGN): self._sign,
            (0x80, INS.DECIPHER): self._decipher,
        }

    @classmethod
    def blank(cls, serial: str = "DENK0100001") -> "Card":
        """Return a card as it leaves the factory: without PINs and without a label."""
        card = cls(serial)
        card.user = card.so = None
        del card.files.content[TOKEN_INFO]
        return card

    @property
    def logged_in(self) -> bool:
        """Whether the card would sign now."""
        return self._logged_in

    # -- for tests: put things on the card -------------------------------------------------

    def add_key(
        self, key: keys.PrivateKey, label: str, number: int, certificate: bytes | None = None
    ) -> None:
        """Put key `number` (1 … 255, its CKA_ID) on the card, with a DER certificate or without.

        OpenSC shows a key that has a certificate under the certificate's label.
        """
        own = cvc.request(key, f"{self.serial}{number:05}", self._device, self._holder)
        self.keys[number] = key
        content = self.files.content
        content[file_id(PRIVATE_KEY, number)] = b""
        content[file_id(PRIVATE_KEY_DESCRIPTION, number)] = pkcs15.private_key(key, label, number)
        content[file_id(END_ENTITY, number)] = certificate or own

    def add_certificate(self, certificate: bytes, label: str, number: int) -> None:
        """Put a DER certificate on the card that belongs to none of its keys."""
        where = file_id(CA_CERTIFICATE, number)
        content = self.files.content
        content[where] = certificate
        content[file_id(CERTIFICATE_DESCRIPTION, number)] = pkcs15.certificate(
            label, bytes([0xCA, number]), where
        )

    def add_data(
        self, value: bytes, label: str, application: str, number: int, *, private: bool = False
    ) -> None:
        """Put a data object on the card; a private one is read after login only."""
        where = file_id(PROTECTED_DATA if private else DATA, number)
        content = self.files.content
        content[where] = value
        content[file_id(DATA_DESCRIPTION, number)] = pkcs15.data(
            label, application, where, private=private
        )

    # -- for the reader --------------------------------------------------------------------

    def reset(self) -> None:
        """Forget what power-off and reset make a card forget. Retry counters stay."""
        self._selected = False
        self._logged_in = False
        self.files.current = 0

    def transmit(self, raw: bytes) -> bytes:
        """Carry out one command APDU; returns data and status word. Raises Unplugged."""
        command, data, sw = Command(0, 0, 0, 0), b"", int(SW.OK)
        try:
            command = _read(raw)
            time.sleep(self.knobs.before(command))
            data = self._run(command)
        except Answer as answer:
            data, sw = answer.data, answer.sw
        except Unplugged:
            raise
        except Exception:  # noqa: BLE001  # a card answers, whatever happens inside
            sw = SW.INTERNAL
        self.knobs.note(command, sw)
        return data + sw.to_bytes(2, "big")

    def _run(self, command: Command) -> bytes:
        if not self._selected and (command.ins, command.p1) != (INS.SELECT, 0x04):
            raise Answer(SW.INS_NOT_SUPPORTED)
        run = self._commands.get((command.cla, command.ins))
        if run is None:
            raise Answer(SW.INS_NOT_SUPPORTED)
        return run(command)

    # -- files -----------------------------------------------------------------------------

    def _select(self, command: Command) -> bytes:
        if command.p1 == 0x04:
            if command.data != AID:
                raise Answer(SW.FILE_NOT_FOUND)
            self.reset()
            self._selected = True
            version = bytes([0, self.options]) + VERSION
            return tlv(0x6F, tlv(0x82, b"\x38"), tlv(0x84, AID), tlv(0x85, version))
        if command.p1 != 0x00 or len(command.data) != 2:
            raise Answer(SW.FILE_NOT_FOUND)
        size = self.files.select(int.from_bytes(command.data, "big"))
        return tlv(
            0x62, tlv(0x81, size.to_bytes(2, "big")), tlv(0x82, b"\x01"), tlv(0x83, command.data)
        )

    def _read(self, command: Command) -> bytes:
        which = p1p2(command) or self.files.current
        high = which >> 8
        if high == PRIVATE_KEY:
            raise Answer(SW.NOT_LOGGED_IN)
        if high == PROTECTED_DATA:
            self._need_login()
        if command.data[:2] != FILE_OFFSET or len(command.data) != 4:
            raise Answer(SW.WRONG_DATA)
        return self.files.read(which, int.from_bytes(command.data[2:], "big"), command.le)

    def _update(self, command: Command) -> bytes:
        self._need_login()
        wanted = fields(command.data)
        if set(wanted) != {0x54, 0x53}:
            raise Answer(SW.WRONG_DATA)
        self.files.update(p1p2(command), int.from_bytes(wanted[0x54], "big"), wanted[0x53])
        return b""

    def _delete(self, command: Command) -> bytes:
        self._need_login()
        which = int.from_bytes(command.data, "big")
        self.files.delete(which)
        if which >> 8 == PRIVATE_KEY:
            del self.keys[which & 0xFF]
        return b""

    def _enumerate(self, _command: Command) -> bytes:
        everything = [file_id(PRIVATE_KEY, 0), *sorted(self.files.content)]
        return b"".join(which.to_bytes(2, "big") for which in everything)

    # -- PINs ------------------------------------------------------------------------------

    def _pin(self, reference: int) -> Pin:
        pin = {USER_PIN: self.user, SO_PIN: self.so}.get(reference)
        if pin is not None:
            return pin
        raise Answer(
            SW.REFERENCE_DATA_UNUSABLE if reference == USER_PIN else SW.REFERENCE_NOT_FOUND
        )

    def _verify(self, command: Command) -> bytes:
        if command.p2 == PAD and self.pad is not None:
            self._pin(USER_PIN).query()
        pin = self._pin(command.p2)
        if not command.data:
            if command.p2 == USER_PIN:
                self._look_at_pad(pin)
                if self._logged_in:
                    return b""
            pin.query()
        if command.p2 == USER_PIN:
            self._logged_in = False
        pin.check(command.data)
        if command.p2 == USER_PIN:
            self._logged_in = True
        return b""

    def _look_at_pad(self, pin: Pin) -> None:
        """Take what was typed: OpenSC's C_Login without a PIN ends in such a query."""
        if self.pad and not self._logged_in:
            pin.check(self.pad.pop(0).encode())
            self._logged_in = True

    def _change(self, command: Command) -> bytes:
        self._pin(command.p2).change(command.data)
        return b""

    def _unblock(self, command: Command) -> bytes:
        user = self._pin(USER_PIN)
        if not self.options & SO_PIN_RESETS_USER_PIN:
            raise Answer(SW.CONDITIONS_NOT_MET)
        self._pin(SO_PIN).check(command.data[:8])
        user.unblock(command.data[8:])
        return b""

    def _need_login(self) -> None:
        if not self._logged_in:
            raise Answer(SW.NOT_LOGGED_IN)

    def _initialize(self, command: Command) -> bytes:
        if not command.data:
            return bytes([0, 1, 0, 0, 0]) + VERSION[1:]  # free memory, version
        wanted = fields(command.data)
        so_pin = wanted[0x82]
        if self.so is None:
            self.so = Pin(so_pin, 15)
        try:
            self.so.check(so_pin)
        except Answer as answer:
            raise Answer(SW.CONDITIONS_NOT_MET) from answer
        self.options = wanted[0x80][-1]
        self.user = Pin(wanted[0x81], wanted[0x91][0])
        shares = wanted.get(0x92)
        self.domain = None if shares is None else Domain.of(shares[0])
        self.keys.clear()
        device = self.files.content[DEVICE_CERTIFICATE]
        self.files.content = {DEVICE_CERTIFICATE: device}
        self._logged_in = False
        return b""

    def _key_domain(self, command: Command) -> bytes:
        if self.domain is None:
            raise Answer(SW.INS_NOT_SUPPORTED)
        if command.data:
            self.domain.take(bytes(command.data))
        return self.domain.status

    def _challenge(self, command: Command) -> bytes:
        if not 0 < command.le <= LARGEST_CHALLENGE:
            raise Answer(SW.WRONG_LENGTH)
        return os.urandom(command.le)

    # -- keys ------------------------------------------------------------------------------

    def _generate(self, command: Command) -> bytes:
        self._need_login()
        number = command.p1
        if number in self.keys:
            raise Answer(SW.EXISTS)
        key, holder = cvc.generate(command.data)
        self.keys[number] = key
        self.files.content[file_id(PRIVATE_KEY, number)] = b""
        return cvc.request(key, holder, self._device, self._holder)

    def _sign(self, command: Command) -> bytes:
        return keys.sign(self._use(command.p1), command.p2, command.data)

    def _decipher(self, command: Command) -> bytes:
        return keys.decipher(self._use(command.p1), command.p2, command.data)

    def _wrap(self, command: Command) -> bytes:
        if self.domain is None or command.p2 != WRAP:
            raise Answer(SW.INS_NOT_SUPPORTED)
        return self.domain.wrap(self._use(command.p1))

    def _unwrap(self, command: Command) -> bytes:
        self._need_login()
        if self.domain is None or command.p2 != UNWRAP:
            raise Answer(SW.INS_NOT_SUPPORTED)
        if command.p1 in self.keys:
            raise Answer(SW.EXISTS)
        # A program whose reader takes no long commands has written the blob to a file before.
        blob = command.data or self.files.content.get(WRAPPED, b"")
        self.keys[command.p1] = self.domain.unwrap(bytes(blob))
        self.files.content[file_id(PRIVATE_KEY, command.p1)] = b""
        return b""

    def _use(self, number: int) -> keys.PrivateKey:
        self._need_login()
        with contextlib.suppress(KeyError):
            key = self.keys[number]
            time.sleep(self.knobs.rsa if isinstance(key, rsa.RSAPrivateKey) else self.knobs.ec)
            return key
        raise Answer(SW.REFERENCE_NOT_FOUND)

    def _device_certificates(self) -> bytes:
        """Return the device's certificate and its issuer's; the serial number is in the first."""
        issuer = ec.generate_private_key(ec.BrainpoolP256R1())
        name = "DEDINK0100001"
        return cvc.certificate(self._device, self._holder, issuer, name) + cvc.certificate(
            issuer, name, issuer, name
        )


def _read(raw: bytes) -> Command:
    try:
        return parse(raw)
    except ProtocolError as error:
        raise Answer(SW.WRONG_LENGTH) from error
