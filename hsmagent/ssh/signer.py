"""Keys as an ssh agent signs with them: the request's data and flags in, a signature blob out."""

from dataclasses import dataclass
from typing import Protocol

from hsmagent.model import Key, Signer
from hsmagent.ssh import signature


class SshSigner(Protocol):
    """A key that the agent offers, wherever it lives. The door calls `sign`; nothing else does.

    Each kind of signer makes its own blobs: a FIDO key adds flags and a counter (OpenSSH's
    PROTOCOL.u2f), and another agent sends the blob as a whole.
    """

    @property
    def key(self) -> Key:
        """The key."""

    async def sign(self, data: bytes, flags: int, pin: bytearray | None = None) -> bytes:
        """Return the signature blob over `data`: `string algorithm`, and its fields.

        flags: of the request (RFC 9987, section 5.6.1). `pin` and the errors are those of
        `model.Signer.sign`.
        """


@dataclass(frozen=True, slots=True)
class RawSigner:
    """A `model.Signer` as an `SshSigner`: of a token, or of a key that ssh-add brought."""

    raw: Signer

    @property
    def key(self) -> Key:
        """The key, as its token shows it now."""
        return self.raw.key

    async def sign(self, data: bytes, flags: int, pin: bytearray | None = None) -> bytes:
        """Sign by the scheme that the key and the flags name, and write the blob."""
        name, scheme = signature.choose(self.raw.key, flags)
        return signature.encode(name, await self.raw.sign(scheme, data, pin))
