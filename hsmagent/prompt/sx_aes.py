"""sx-aes-1: how a secret crosses the session bus between a prompter and its client.

Diffie-Hellman in RFC 3526's group 5, HKDF-SHA256 without salt and info, AES-128-CBC with PKCS#7
padding; a message is a key file with the group [sx-aes-1] and base64 values (gcr,
gcr-secret-exchange.c). It keeps PINs out of bus monitors and logs. It authenticates nobody: it does
not protect against a program that passes for the prompter.
"""

import base64
import secrets
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsmagent.errors import ProtocolError
from hsmagent.frame import wipe

GENERATOR = 2
PRIME_BYTES = 192
PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E34"
    "04DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6"
    "F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A6916"
    "3FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327"
    "FFFFFFFFFFFFFFFF",
    16,
)

_HEADING = "[sx-aes-1]"
_BLOCK = 16
_EXPONENT_BITS = 512  # twice what the group's strength asks for; a full one would cost 18 ms


def _random_exponent() -> int:
    return secrets.randbits(_EXPONENT_BITS) | 1 << (_EXPONENT_BITS - 1)


class Exchange:
    """Our side of one conversation, in which the prompter speaks first.

    greeting: the prompter's first message. Our key pair stays the same for the conversation,
    because the prompter derives its key once. Raises ProtocolError.
    """

    def __init__(
        self, greeting: str, random_exponent: Callable[[], int] = _random_exponent
    ) -> None:
        self._peer = _read_public(_read(greeting))
        # gcr up to 4.2 hashes the shared secret without its leading zeros, from 4.3 with them.
        # A secret that has none suits both.
        shared = b"\0"
        while shared[0] == 0:
            exponent = random_exponent()
            shared = pow(self._peer, exponent, PRIME).to_bytes(PRIME_BYTES, "big")
        self._public = pow(GENERATOR, exponent, PRIME)
        self._key = HKDF(SHA256(), _BLOCK, salt=None, info=b"").derive(shared)

    @property
    def message(self) -> str:
        """The text that goes with each prompt: our public key."""
        public = self._public.to_bytes((self._public.bit_length() + 7) // 8, "big")
        return f"{_HEADING}\npublic={base64.b64encode(public).decode()}\n"

    def open(self, text: str) -> bytearray:
        """Return the secret of an answer; the caller wipes it. Raises ProtocolError."""
        fields = _read(text)
        if _read_public(fields) != self._peer:
            raise ProtocolError("the prompter changed its key within the conversation")
        sealed, iv = fields.get("secret", b""), fields.get("iv", b"")
        if not sealed or len(sealed) % _BLOCK or len(iv) != _BLOCK:
            raise ProtocolError("the prompter's secret has a wrong length")
        padded = bytearray(len(sealed) + _BLOCK - 1)  # update_into wants this much
        try:
            decryptor = Cipher(AES(self._key), CBC(iv)).decryptor()
            decryptor.update_into(sealed, padded)
            decryptor.finalize()
            return _unpad(padded, len(sealed))
        finally:
            wipe(padded)


def _unpad(padded: bytearray, length: int) -> bytearray:
    """Cut PKCS#7 padding (RFC 5652, section 6.3) off the first `length` bytes, in a copy."""
    padding = padded[length - 1]
    if (
        not 1 <= padding <= _BLOCK
        or padded[length - padding : length] != bytes([padding]) * padding
    ):
        raise ProtocolError("the prompter's secret does not decrypt")
    return padded[: length - padding]


def _read_public(fields: dict[str, bytes]) -> int:
    public = int.from_bytes(fields.get("public", b""), "big")
    if not 1 < public < PRIME - 1:
        raise ProtocolError("the prompter's public key is out of range")
    return public


def _read(text: str) -> dict[str, bytes]:
    heading, *lines = text.strip().splitlines() or [""]
    if heading.strip() != _HEADING:
        raise ProtocolError("the prompter does not speak sx-aes-1")
    fields: dict[str, bytes] = {}
    for line in lines:
        key, _, value = line.partition("=")
        try:
            fields[key.strip()] = base64.b64decode(value.strip(), validate=True)
        except ValueError as error:  # binascii.Error is one
            raise ProtocolError("the prompter sent broken base64") from error
    return fields
