"""A SmartCard-HSM: commands in, answers out.

Written from the command set that OpenSC's driver uses; the genuine card knows more. Knows
nothing of readers: `vpcd` plugs it into one.
"""

import contextlib
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.parts.card import cvc, files, keys, pkcs15
from tests.parts.card.apdu import INS, SW, Answer, Command, parse
from tests.parts.card.files import fid
from tests.parts.card.knobs import Knobs, Unplugged
from tests.parts.card.pin import Pin
from tests.parts.card.tlv import fields, tlv

Run = Callable[[Command], bytes]

ATR = bytes.fromhex("3BFE1800008131FE458031815448534D31738021408107FA")
AID = bytes.fromhex("E82B0601040181C31F0201")
VERSION = bytes([0xFF, 3, 5])  # generic, 3.5
SO_PIN_RESETS_USER_PIN = 0x01  # an option of INITIALIZE

USER = 0x81  # references of the PINs
SO = 0x88
PAD = 0x85  # asked only whether the card has a way of its own to check the person

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
        self.files.content[files.DEVICE_CERTIFICATE] = self._device_certificates()
        self.files.content[files.TOKEN_INFO] = pkcs15.token_info(label)
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
            (0x80, INS.ENUMERATE_OBJECTS): self._enumerate,
            (0x80, INS.SIGN): self._sign,
            (0x80, INS.DECIPHER): self._decipher,
        }

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
        content[fid(files.PRIVATE_KEY, number)] = b""
        content[fid(files.PRIVATE_KEY_DESCRIPTION, number)] = pkcs15.private_key(key, label, number)
        content[fid(files.END_ENTITY, number)] = certificate or own

    def add_certificate(self, certificate: bytes, label: str, number: int) -> None:
        """Put a DER certificate on the card that belongs to none of its keys."""
        where = fid(files.CA_CERTIFICATE, number)
        content = self.files.content
        content[where] = certificate
        content[fid(files.CERTIFICATE_DESCRIPTION, number)] = pkcs15.certificate(
            label, bytes([0xCA, number]), where
        )

    def add_data(
        self, value: bytes, label: str, application: str, number: int, *, private: bool = False
    ) -> None:
        """Put a data object on the card; a private one is read after login only."""
        where = fid(files.PROTECTED_DATA if private else files.DATA, number)
        content = self.files.content
        content[where] = value
        content[fid(files.DATA_DESCRIPTION, number)] = pkcs15.data(
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
            command = parse(raw)
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
        which = command.p1p2 or self.files.current
        high = which >> 8
        if high == files.PRIVATE_KEY:
            raise Answer(SW.NOT_LOGGED_IN)
        if high == files.PROTECTED_DATA:
            self._need_login()
        if command.data[:2] != FILE_OFFSET or len(command.data) != 4:
            raise Answer(SW.WRONG_DATA)
        return self.files.read(which, int.from_bytes(command.data[2:], "big"), command.le)

    def _update(self, command: Command) -> bytes:
        self._need_login()
        wanted = fields(command.data)
        if set(wanted) != {0x54, 0x53}:
            raise Answer(SW.WRONG_DATA)
        self.files.update(command.p1p2, int.from_bytes(wanted[0x54], "big"), wanted[0x53])
        return b""

    def _delete(self, command: Command) -> bytes:
        self._need_login()
        which = int.from_bytes(command.data, "big")
        self.files.delete(which)
        if which >> 8 == files.PRIVATE_KEY:
            del self.keys[which & 0xFF]
        return b""

    def _enumerate(self, _command: Command) -> bytes:
        everything = [fid(files.PRIVATE_KEY, 0), *sorted(self.files.content)]
        return b"".join(which.to_bytes(2, "big") for which in everything)

    # -- PINs ------------------------------------------------------------------------------

    def _pin(self, reference: int) -> Pin:
        pin = {USER: self.user, SO: self.so}.get(reference)
        if pin is not None:
            return pin
        raise Answer(SW.REFERENCE_DATA_UNUSABLE if reference == USER else SW.REFERENCE_NOT_FOUND)

    def _verify(self, command: Command) -> bytes:
        if command.p2 == PAD and self.pad is not None:
            self._pin(USER).query()
        pin = self._pin(command.p2)
        if not command.data:
            if command.p2 == USER:
                self._look_at_pad(pin)
                if self._logged_in:
                    return b""
            pin.query()
        if command.p2 == USER:
            self._logged_in = False
        pin.check(command.data)
        if command.p2 == USER:
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
        user = self._pin(USER)
        if not self.options & SO_PIN_RESETS_USER_PIN:
            raise Answer(SW.CONDITIONS_NOT_MET)
        self._pin(SO).check(command.data[:8])
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
        self.keys.clear()
        device = self.files.content[files.DEVICE_CERTIFICATE]
        self.files.content = {files.DEVICE_CERTIFICATE: device}
        self._logged_in = False
        return b""

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
        self.files.content[fid(files.PRIVATE_KEY, number)] = b""
        return cvc.request(key, holder, self._device, self._holder)

    def _sign(self, command: Command) -> bytes:
        return keys.sign(self._use(command.p1), command.p2, command.data)

    def _decipher(self, command: Command) -> bytes:
        return keys.decipher(self._use(command.p1), command.p2, command.data)

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
