"""The device key encryption key (DKEK): its shares, its check value, the keys derived from it.

A DKEK is the XOR of all its shares. A share's file is what `openssl enc` would write, with ten
million rounds of MD5 between the password and the key, as in sc-hsm-tool: they make guessing the
password slow, and take us seconds, too.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial, reduce
from importlib import import_module
from itertools import repeat

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

SHARE = 32  # bytes
FILE = 64
KCV = 8
ROUNDS = 10_000_000
_MAGIC = b"Salted__"
_SALT = 8
_BLOCK = 16
_PADDING = bytes([_BLOCK]) * _BLOCK  # a share is two blocks: a third of PKCS#7's alone
_STEP = 100_000  # rounds between two reports

try:
    # A call of Python's own MD5 takes half as long as one of OpenSSL's. Some builds of Python lack
    # the former.
    _md5 = import_module("_md5").md5
except ImportError:
    _md5 = partial(hashlib.md5, usedforsecurity=False)

Progress = Callable[[float], None]
"""Told the part that is done, from 0 to 1."""


class WrongPassword(Exception):
    """The password does not decrypt the share's file."""


@dataclass(frozen=True, slots=True)
class Dkek:
    """A whole DKEK. Its repr() does not show its bytes."""

    key: bytes = field(repr=False)

    @property
    def kcv(self) -> bytes:
        """The check value by which a card and a backup tell which DKEK they are made with."""
        return hashlib.sha256(self.key).digest()[:KCV]

    def decrypt(self, data: bytes) -> bytes:
        """AES-256-CBC with IV zero: the plaintexts begin with random bytes."""
        return _cbc(self._derived(1), bytes(_BLOCK)).decryptor().update(data)

    def encrypt(self, data: bytes) -> bytes:
        """AES-256-CBC with IV zero, of whole blocks."""
        return _cbc(self._derived(1), bytes(_BLOCK)).encryptor().update(data)

    def mac(self, data: bytes) -> bytes:
        """AES-CMAC, 16 bytes."""
        mac = CMAC(algorithms.AES(self._derived(2)))
        mac.update(data)
        return mac.finalize()

    def _derived(self, number: int) -> bytes:
        return hashlib.sha256(self.key + number.to_bytes(4, "big")).digest()


def combine(shares: Iterable[bytes]) -> Dkek:
    """Return the DKEK of all these shares; their order does not matter."""
    whole = reduce(lambda a, b: a ^ b, (int.from_bytes(share, "big") for share in shares), 0)
    return Dkek(whole.to_bytes(SHARE, "big"))


def make_share() -> bytes:
    """Return a new share."""
    return secrets.token_bytes(SHARE)


def encrypt_share(
    share: bytes, password: bytes | bytearray, progress: Progress, rounds: int = 0
) -> bytes:
    """Return the content of a share's file."""
    salt = secrets.token_bytes(_SALT)
    key, iv = _derive(password, salt, progress, rounds or ROUNDS)
    return _MAGIC + salt + _cbc(key, iv).encryptor().update(share + _PADDING)


def check_file(content: bytes) -> None:
    """Raise ValueError for what cannot be a share's file, before anybody waits for the rounds."""
    if len(content) != FILE or not content.startswith(_MAGIC):
        raise ValueError("it does not hold a DKEK share")


def decrypt_share(
    content: bytes, password: bytes | bytearray, progress: Progress, rounds: int = 0
) -> bytes:
    """Return the share in a file. Raises ValueError, WrongPassword."""
    check_file(content)
    salt = content[len(_MAGIC) : len(_MAGIC) + _SALT]
    key, iv = _derive(password, salt, progress, rounds or ROUNDS)
    plain = _cbc(key, iv).decryptor().update(content[len(_MAGIC) + _SALT :])
    if not hmac.compare_digest(plain[SHARE:], _PADDING):
        raise WrongPassword
    return plain[:SHARE]


def _derive(
    password: bytes | bytearray, salt: bytes, progress: Progress, rounds: int
) -> tuple[bytes, bytes]:
    """EVP_BytesToKey of OpenSSL with MD5: an AES-256 key and an IV."""
    seed, blocks = bytes(password) + salt, [b""]
    for number in range(3):
        digest, left = blocks[-1] + seed, rounds
        while left:
            for _ in repeat(None, min(left, _STEP)):
                digest = _md5(digest).digest()
            left -= min(left, _STEP)
            progress((number + 1 - left / rounds) / 3)
        blocks.append(digest)
    material = b"".join(blocks)
    return material[:32], material[32:]


def _cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CBC(iv))
