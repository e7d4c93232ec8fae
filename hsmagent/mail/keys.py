"""The one small interface through which mail reaches private keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hsmagent.model import Key, Scheme

if TYPE_CHECKING:
    from hsmagent.unwraps import Unwrap


@dataclass(frozen=True, slots=True)
class Context:
    """What the prompt tells a person about one operation; foreign text, not yet printable.

    program: which one asks ("neomutt", "git"). sender: the From field. subject: the Subject field.
    """

    program: str = ""
    sender: str = ""
    subject: str = ""


class MailKeys(Protocol):
    """Private keys that somebody else holds: the daemon, or a test's software keys.

    It has no raw RSA, takes no ready digest and gives no ECDH secret, so that it is neither a
    signing oracle nor a padding oracle for its caller.
    """

    def keys(self) -> Sequence[Key]:
        """Return the keys with their certificates. Asks for no PIN."""

    def read_gcm(self) -> bool:
        """Whether all programs that decrypt with these keys know AES-GCM. GnuPG does not."""
        ...

    def sign_attributes(
        self, key: Key, scheme: Scheme, attributes: bytes, context: Context
    ) -> bytes:
        """Sign a mail's signed attributes, given as the DER SET OF (tag 0x31).

        Whoever holds the key hashes them. The signature is, for RSA, as long as the modulus; for
        ECDSA r‖s, each as long as the order; for Ed25519 64 bytes. Raises Refused or TokenError.
        """

    def unwrap(self, key: Key, what: "Unwrap", length: int, context: Context) -> bytes:
        """Return a content-encryption key of exactly `length` bytes.

        When anything about the ciphertext is wrong, it is a random one, and the caller cannot tell.
        Raises Refused or TokenError only for reasons that do not depend on the ciphertext.
        """


KeysFactory = Callable[[], MailKeys]
"""Connects to whoever holds the keys. Raises HsmAgentError."""
