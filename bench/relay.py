"""The limits: a loop of C_SignInit and C_Sign, and the barest agent that Python could be.

That agent is two processes, as ours is. One takes a sign request from a socket, hashes what is to
be signed and passes the digest on; the other has the token. Nobody is asked, and the signature is
checked in a second round only.
"""

import ctypes
import hashlib
import os
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from bench import load, rivals
from bench.load import EC
from bench.processes import forked
from bench.result import Part, Scale, shown
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

_CKM_ECDSA, _CKO_PRIVATE_KEY = 0x1041, 3
_SERIAL_SESSION, _CKU_USER, _CKA_CLASS = 4, 1, 0
_SIZE = 64  # of a P-256 signature
_DIGEST = 32
_NO_KEYS = load.packed(b"\x0c" + bytes(4))


def measure(scale: Scale) -> Part:
    """Return the lines about both limits, beside OpenSSH's agent."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        folder = Path(name)
        token = rivals.hsm(folder / "hsm")
        token.generate("bench", "EC:prime256v1", "01", "ec")
        raw = _raw(token, scale)
        lines = [("C_SignInit and C_Sign in a loop, P-256", f"{raw:.0f} µs")]
        with rivals.openssh(folder, token) as agent:
            for what, checks in (("the bare relay", False), ("the same with a check", True)):
                with _relay(folder / f"{checks}.sock", token, checks=checks) as bare:
                    lines += _beside(what, bare, agent.path, scale)
                    if checks:
                        told = _in_turn(load.LIST, bare, agent.path, scale)
                        lines.append(("a list without a key, 1 client, p50", told))
    return Part(lines=tuple(lines))


def _beside(name: str, bare: Path, theirs: Path, scale: Scale) -> list[tuple[str, str]]:
    request = load.request_for(theirs, EC)
    one = _in_turn(request, bare, theirs, scale)
    many = [load.load(bare, request, 8, scale.seconds) for _ in range(scale.rounds)]
    return [
        (f"{name}: P-256, 1 client, p50", one),
        (f"{name}: P-256, 8 clients", f"{load.median(many, 'rate'):.0f} a second"),
    ]


def _in_turn(request: bytes, bare: Path, theirs: Path, scale: Scale) -> str:
    for path in (bare, theirs):
        load.load(path, request, 1, 0.1)
    ours, other = [], []
    for _ in range(scale.rounds):
        ours.append(load.load(bare, request, 1, scale.seconds))
        other.append(load.load(theirs, request, 1, scale.seconds))
    ratio = statistics.median(a.p50 / b.p50 for a, b in zip(ours, other, strict=True))
    return f"{load.median(ours, 'p50'):.0f} µs, {shown(ratio)} of ssh-agent's"


class _Attribute(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_ulong),
        ("value", ctypes.c_void_p),
        ("length", ctypes.c_ulong),
    )


class _Mechanism(ctypes.Structure):
    _fields_ = (
        ("mechanism", ctypes.c_ulong),
        ("parameter", ctypes.c_void_p),
        ("length", ctypes.c_ulong),
    )


class _Key:
    """The first private key of the token, by ctypes alone. SoftHSM exports each function."""

    def __init__(self) -> None:
        self._module = ctypes.CDLL(MODULE)
        self._call("C_Initialize", None)
        slots, count = (ctypes.c_ulong * 8)(), ctypes.c_ulong(8)
        self._call("C_GetSlotList", 1, slots, ctypes.byref(count))
        session = ctypes.c_ulong()
        slot = ctypes.c_ulong(slots[0])
        self._call(
            "C_OpenSession",
            slot,
            ctypes.c_ulong(_SERIAL_SESSION),
            None,
            None,
            ctypes.byref(session),
        )
        pin = PIN.encode()
        self._call("C_Login", session, ctypes.c_ulong(_CKU_USER), pin, ctypes.c_ulong(len(pin)))
        kind = ctypes.c_ulong(_CKO_PRIVATE_KEY)
        wanted = _Attribute(_CKA_CLASS, ctypes.cast(ctypes.byref(kind), ctypes.c_void_p), 8)
        self._call("C_FindObjectsInit", session, ctypes.byref(wanted), ctypes.c_ulong(1))
        self._key, found = ctypes.c_ulong(), ctypes.c_ulong()
        self._call(
            "C_FindObjects",
            session,
            ctypes.byref(self._key),
            ctypes.c_ulong(1),
            ctypes.byref(found),
        )
        self._call("C_FindObjectsFinal", session)
        self._session, self._mechanism = session, _Mechanism(_CKM_ECDSA, None, 0)
        self._out = ctypes.create_string_buffer(_SIZE)

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest: r‖s."""
        size = ctypes.c_ulong(_SIZE)
        self._call("C_SignInit", self._session, ctypes.byref(self._mechanism), self._key)
        self._call(
            "C_Sign",
            self._session,
            digest,
            ctypes.c_ulong(len(digest)),
            self._out,
            ctypes.byref(size),
        )
        return self._out.raw[: size.value]

    def _call(self, name: str, *arguments: object) -> None:
        value = getattr(self._module, name)(*arguments)
        if value:
            raise RuntimeError(f"{name} returned {value:#x}")


def _raw(token: SoftHsm, scale: Scale) -> float:
    """Return the median time of a signature in microseconds, in a process of its own."""
    ours, theirs = socket.socketpair()

    def work() -> None:
        os.environ.update(dict(token.env))
        key, times = _Key(), []
        end = time.perf_counter() + scale.rounds * scale.seconds
        while (began := time.perf_counter()) < end:
            key.sign(os.urandom(_DIGEST))
            times.append(time.perf_counter() - began)
        theirs.sendall(str(statistics.median(times) * 1e6).encode())

    with ours, theirs, forked(work):
        ours.settimeout(scale.rounds * scale.seconds + 30)
        return float(ours.recv(100))


@contextmanager
def _relay(path: Path, token: SoftHsm, *, checks: bool) -> Iterator[Path]:
    """Start both processes; the socket."""
    front, back = socket.socketpair()

    def sign() -> None:
        os.environ.update(dict(token.env))
        key = _Key()
        while digest := back.recv(_DIGEST):
            back.sendall(key.sign(digest))

    with front, back, forked(sign), forked(_serve, path, front, checks):
        until(lambda: load.answers(path))
        yield path


def _serve(path: Path, signer: socket.socket, checks: bool) -> None:  # noqa: FBT001 - by `forked`
    check = _Check() if checks else None
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(64)
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is listening:
                    selector.register(sock.accept()[0], selectors.EVENT_READ)
                elif (request := sock.recv(4096)) == load.LIST:
                    sock.sendall(_NO_KEYS)
                elif request:
                    sock.sendall(_signed(request, signer, check))
                else:
                    selector.unregister(sock)
                    sock.close()


class _Check:
    """Checks signatures of the key that the first request names, read once."""

    _public: ec.EllipticCurvePublicKey | None = None
    _scheme = ec.ECDSA(Prehashed(hashes.SHA256()))

    def __call__(self, blob: bytes, digest: bytes, raw: bytes) -> None:
        """Raise InvalidSignature for another key's signature."""
        if self._public is None:
            self._public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), blob[-65:])
        r, s = (int.from_bytes(raw[at : at + 32], "big") for at in (0, 32))
        self._public.verify(encode_dss_signature(r, s), digest, self._scheme)


def _signed(request: bytes, signer: socket.socket, check: _Check | None) -> bytes:
    """Return the reply to a sign request."""
    blob_end = 9 + int.from_bytes(request[5:9], "big")
    data = request[blob_end + 4 : blob_end + 4 + int.from_bytes(request[blob_end:][:4], "big")]
    digest = hashlib.sha256(data).digest()
    signer.sendall(digest)
    raw = signer.recv(_SIZE)
    if check is not None:
        check(request[9:blob_end], digest, raw)
    numbers = b"".join(load.packed(b"\0" + raw[at : at + 32]) for at in (0, 32))
    signature = load.packed(EC.encode()) + load.packed(numbers)
    return load.packed(b"\x0e" + load.packed(signature))
