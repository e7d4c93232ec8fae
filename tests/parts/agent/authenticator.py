"""A FIDO authenticator, and the program that speaks to it, in place of ssh-sk-helper.

It does what the packaged sk-dummy.so does not: a PIN, a touch, faults. The program's protocol is
written from OpenSSH's sources, independently of ours, so that it tests ours.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.ssh import wire
from hsmagent.ssh.wire import Reader

ROOT = Path(__file__).parents[3]
ED25519, ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
TYPES = (ED25519, ECDSA)
TOUCHED, RECOGNISED = 0x01, 0x04
WRONG_PASSPHRASE, DEVICE_NOT_FOUND = 43, 60

_PROGRAM = """\
#!{python} -P
import sys
sys.path.insert(0, {root!r})
from tests.parts.agent.authenticator import main
main({folder!r})
"""


@dataclass(frozen=True)
class FidoKey:
    """A key pair. Its handle is the private key, as sk-dummy.so's is, unless there is another."""

    kind: str
    secret: bytes
    application: str = "ssh:"
    flags: int = TOUCHED
    handle: bytes = b""

    @property
    def blob(self) -> bytes:
        """The key blob (PROTOCOL.u2f)."""
        if self.kind == ED25519:
            public = ed25519.Ed25519PrivateKey.from_private_bytes(self.secret).public_key()
            fields = wire.string(public.public_bytes_raw())
        else:
            point = self._ec().public_key()
            encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            fields = wire.text("nistp256") + wire.string(encoded)
        return wire.text(self.kind) + fields + wire.text(self.application)

    @property
    def private_fields(self) -> bytes:
        """The key as message 17 has it, without its comment."""
        return self.blob + self.sk_fields

    @property
    def sk_fields(self) -> bytes:
        return bytes((self.flags,)) + wire.string(self.handle or self.secret) + wire.string(b"")

    def _ec(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(self.secret, "big"), ec.SECP256R1())

    def sign(self, data: bytes, flags: int, counter: int = 7) -> bytes:
        """Return the signature blob over data."""
        tail = bytes((flags,)) + counter.to_bytes(4, "big")
        signed = sha256(self.application.encode()).digest() + tail + sha256(data).digest()
        if self.kind == ED25519:
            raw = ed25519.Ed25519PrivateKey.from_private_bytes(self.secret).sign(signed)
        else:
            der = self._ec().sign(signed, ec.ECDSA(SHA256()))
            raw = b"".join(map(wire.mpint, decode_dss_signature(der)))
        return wire.text(self.kind) + wire.string(raw) + tail


def new_key(kind: str = ED25519, application: str = "ssh:", flags: int = TOUCHED) -> FidoKey:
    return FidoKey(kind, b"\1" + os.urandom(31), application, flags)


class Authenticator:
    """The program at `path`, and what it does: how it is told to behave, what it was asked."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "ssh-sk-helper"
        self.path.write_text(
            _PROGRAM.format(python=sys.executable, root=str(ROOT), folder=str(folder))
        )
        self.path.chmod(0o755)
        self.behave()

    def behave(self, *, pin: str = "", touch: bool = False, fault: str = "") -> None:
        """From now on, want this PIN, wait for a touch, or misbehave."""
        manner = {"pin": pin, "touch": touch, "fault": fault}
        (self.folder / "manner").write_text(json.dumps(manner))

    def touch(self) -> None:
        """Touch it, once."""
        (self.folder / "touched").touch()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests so far, in order: pid, PIN, provider, names in the environment."""
        log = self.folder / "asked"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# -- the program -----------------------------------------------------------------------------


def main(path: str) -> NoReturn:
    folder = Path(path)
    manner = json.loads((folder / "manner").read_text())
    reader = Reader(_read(int.from_bytes(_read(4), "big")))
    assert reader.u8() == 5
    assert reader.u32() == 1, "only signatures are wanted"
    reader.u8(), reader.u32()
    key, provider, data = _key(reader.reader()), reader.text(), reader.string()
    assert (reader.text(), reader.u32()) == ("", 0)
    pin = reader.text()
    reader.end()
    said = {"pid": os.getpid(), "pin": pin, "provider": provider, "environment": list(os.environ)}
    with (folder / "asked").open("a") as log:
        print(json.dumps(said), file=log)
    _answer(folder, manner, key, data, pin)


def _answer(folder: Path, manner: dict[str, Any], key: FidoKey, data: bytes, pin: str) -> NoReturn:
    fault = manner["fault"]
    if fault in FAULTS:
        FAULTS[fault]()
        sys.exit(0)
    if fault == "another key":
        key = new_key(key.kind, key.application)
    if manner["pin"] and pin != manner["pin"]:
        _error(WRONG_PASSPHRASE)
        sys.exit(0)
    while manner["touch"] and not (folder / "touched").exists():
        time.sleep(0.01)
    (folder / "touched").unlink(missing_ok=True)
    flags = TOUCHED * manner["touch"] | RECOGNISED * bool(manner["pin"])
    _write(b"\5" + wire.u32(1) + wire.string(key.sign(data, flags)))
    sys.exit(3 if fault == "status" else 0)


def _hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def _error(code: int) -> None:
    _write(b"\5" + wire.u32(0) + wire.u32(code))


def _write(body: bytes) -> None:
    os.write(1, wire.string(body))


FAULTS: dict[str, Callable[[], object]] = {
    "hang": _hang,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "leave": lambda: sys.exit(255),
    "nonsense": lambda: _write(b"\5\0\0\0\1\xff\xff\xff\xffnonsense"),
    "frame": lambda: os.write(1, b"\xff" * 100),
    "version": lambda: _write(b"\6" + wire.u32(1) + wire.string(b"")),
    "unasked": lambda: _write(b"\5" + wire.u32(2) + wire.u32(0)),
    "unplugged": lambda: _error(DEVICE_NOT_FOUND),
    "untouched": lambda: _error(4),
}


def _key(reader: Reader) -> FidoKey:
    kind = reader.text()
    if kind == ECDSA:
        reader.text()
    reader.string()
    application, flags = reader.text(), reader.u8()
    return FidoKey(kind, reader.string(), application, flags)


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        assert part, "the request is cut short"
        data += part
    return data
