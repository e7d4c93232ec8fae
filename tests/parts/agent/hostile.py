"""A forwarded host that attacks the agent: frames on the ssh socket, and keys of odd shapes."""

import socket
from contextlib import suppress
from math import lcm
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

E = 65537


class Client:
    """A connection to an ssh socket, frame by frame."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))

    def ask(self, body: bytes) -> bytes:
        """Send one message and return the reply's body; b"" when the agent hangs up."""
        self.send(body)
        return self.reply()

    def send(self, body: bytes) -> None:
        """Send one message."""
        with suppress(BrokenPipeError):
            self._socket.sendall(string(body))

    def reply(self) -> bytes:
        """Return the body of the next reply."""
        length = int.from_bytes(self._exactly(4), "big")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                more = self._socket.recv(length - len(data))
            except ConnectionResetError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def bind(
        self,
        host: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
        session_id: bytes,
        *,
        forwarding: bool,
        host_key: bytes = b"",
    ) -> bool:
        """Bind the connection to a session, as its host; say whether the agent took it."""
        contents = string(host_key or blob_of(host)) + string(session_id)
        contents += string(_sign(host, session_id)) + bytes((forwarding,))
        return self.ask(b"\x1b" + string(b"session-bind@openssh.com") + contents) == b"\x06"

    def sign(self, blob: bytes, data: bytes, flags: int = 0) -> bytes:
        """Return the signature itself, without the algorithm's name; b"" when it is refused."""
        reply = self.ask(b"\x0d" + string(blob) + string(data) + flags.to_bytes(4, "big"))
        if reply[:1] != b"\x0e":
            return b""
        signed = reply[5:]
        name = int.from_bytes(signed[:4], "big")
        return signed[4 + name + 4 :]

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def string(data: bytes) -> bytes:
    """Write a string of RFC 4251."""
    return len(data).to_bytes(4, "big") + data


def mpint(value: int) -> bytes:
    """Write a number of RFC 4251."""
    return string(value.to_bytes((value.bit_length() + 8) // 8, "big"))


def blob_of(host: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Return a host's key blob."""
    if isinstance(host, ed25519.Ed25519PrivateKey):
        return string(b"ssh-ed25519") + string(host.public_key().public_bytes_raw())
    numbers = host.public_key().public_numbers()
    return string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)


def _sign(host: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, data: bytes) -> bytes:
    if isinstance(host, ed25519.Ed25519PrivateKey):
        return string(b"ssh-ed25519") + string(host.sign(data))
    raw = host.sign(data, padding.PKCS1v15(), hashes.SHA512())
    return string(b"rsa-sha2-512") + string(raw)


def rsa_key(*, beginning: bytes = b"", end: bytes = b"", size: int = 256) -> rsa.RSAPrivateKey:
    """Return an RSA key whose modulus begins or ends (oddly) with up to half its size."""
    while True:
        p = rsa.generate_private_key(E, 8 * size // 2).private_numbers().p
        if beginning:
            start = int.from_bytes(beginning.ljust(size, b"\x80"), "big") // p | 1
            step = 2
        else:
            step = 1 << (8 * len(end))
            start = int.from_bytes(end, "big") * pow(p, -1, step) % step
            start += (1 << (8 * size // 2 - 1)) // step * step
        found = next((q for q in range(start, start + 5000 * step, step) if is_prime(q)), None)
        if found is not None and (found - 1) % E:
            return _private(p, found)


def is_prime(number: int) -> bool:
    """Fermat's test, which suffices for random candidates."""
    return all(number % small for small in (3, 5, 7, 11, 13)) and pow(2, number - 1, number) == 1


def _private(p: int, q: int) -> rsa.RSAPrivateKey:
    d = pow(E, -1, lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(E, p * q)
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *crt, public).private_key()
