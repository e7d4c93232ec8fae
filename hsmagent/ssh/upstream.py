"""Another agent behind ours: its identities after ours, its signatures through our door.

Each client connection has an upstream connection of its own, since session bindings belong to a
connection; when it has to be made anew, the bindings are sent again. `daemon.upstream_socket`
carries the frames.
"""

import logging
from collections.abc import Collection
from typing import Protocol

from hsmagent.errors import HsmAgentError, ProtocolError, TokenError, Unavailable
from hsmagent.model import Key, KeyType, printable
from hsmagent.ssh import certificates, keys, messages, signature
from hsmagent.ssh.identities import Identity
from hsmagent.ssh.keys import PublicKey
from hsmagent.ssh.messages import SESSION_BIND
from hsmagent.ssh.software import COMMENT_LIMIT

log = logging.getLogger(__name__)

# Seconds: an agent lists at once; a signature may wait for a person.
LIST_SECONDS = 1.0
SIGN_SECONDS = 120.0


class Link(Protocol):
    """A connection to another agent."""

    @property
    def takes_bindings(self) -> bool:
        """Whether that agent may be sent bindings: one agent crashes on every extension."""

    async def ask(self, request: bytes, seconds: float, *, holds: bool = False) -> bytes:
        """Send one message's body; return the reply's. Raises Unavailable.

        holds: the message holds for the connection, and is sent again when that is made anew.
        """

    def close(self) -> None:
        """Hang up."""


class Upstream:
    """What one connection of ours sees of the other agent."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[bytes, Identity] = {}

    async def identities(self, without: Collection[bytes]) -> list[Identity]:
        """Return its identities, except those in `without`; [] when the agent is not there."""
        try:
            reply = await ask(self._link, messages.RequestIdentities(), LIST_SECONDS)
        except Unavailable as error:
            log.warning("the upstream agent is left out: %s", error)
            return []
        if not isinstance(reply, messages.IdentitiesAnswer):
            return []
        named = ((blob, printable(comment, COMMENT_LIMIT)) for blob, comment in reply.identities)
        self._known = {
            blob: Identity(blob, comment, UpstreamSigner(self._link, blob, comment))
            for blob, comment in named
        }
        return [each for blob, each in self._known.items() if blob not in without]

    async def find(self, blob: bytes) -> Identity | None:
        """Return the other agent's identity under a blob, to sign with."""
        if blob not in self._known:
            await self.identities(())
        return self._known.get(blob)

    async def bind(self, contents: bytes) -> None:
        """Pass a session binding on, whether or not we accepted it."""
        if self._link.takes_bindings:
            binding = messages.Extension(SESSION_BIND, contents)
            try:
                await ask(self._link, binding, LIST_SECONDS, holds=True)
            except Unavailable as error:
                log.warning("the upstream agent is left out: %s", error)

    def close(self) -> None:
        """Hang up."""
        self._link.close()


class UpstreamSigner:
    """A key of the other agent. Implements `signer.SshSigner`."""

    def __init__(self, link: Link, blob: bytes, comment: str) -> None:
        self.key = _describe(blob, comment)
        self._link = link
        self._blob = blob

    async def sign(self, data: bytes, flags: int, pin: bytearray | None = None) -> bytes:  # noqa: ARG002 - SshSigner's signature
        """Have it sign, and check the signature where we can read it. Raises TokenError."""
        request = messages.SignRequest(self._blob, data, flags)
        reply = await ask(self._link, request, SIGN_SECONDS)
        if not isinstance(reply, messages.SignResponse):
            raise TokenError("the upstream agent did not sign")
        public = _public(self._blob)
        try:
            sound = public is None or signature.verifies(public, reply.signature, data)
        except ProtocolError:
            sound = False
        if not sound:
            raise TokenError("the upstream agent's signature is not its key's")
        return reply.signature


async def ask(
    link: Link, request: messages.Request, seconds: float, *, holds: bool = False
) -> object:
    """Send a request and return the reply. Raises Unavailable, for a malformed reply, too."""
    reply = await link.ask(messages.encode(request), seconds, holds=holds)
    try:
        return messages.decode(reply)
    except ProtocolError as error:
        link.close()
        raise Unavailable(f"it does not speak the agent protocol: {error}") from None


def _public(blob: bytes) -> PublicKey | None:
    try:
        return certificates.public_key(blob)
    except HsmAgentError:
        return None


def _describe(blob: bytes, comment: str) -> Key:
    """Return a key as `model.Key`; of a kind that we cannot read, it holds the blob alone."""
    public = _public(blob)
    if public is not None:
        return keys.describe(public, label=comment)
    return Key(blob, KeyType.OTHER, 0, label=comment)
