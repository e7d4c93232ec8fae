"""FIDO keys (OpenSSH's PROTOCOL.u2f), which ssh-add brings and an authenticator holds.

What ssh-add brings is no secret, only the authenticator's handle for the key. The authenticator
signs by way of OpenSSH's ssh-sk-helper (`sk_helper`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hsmagent.errors import ProtocolError, Refused, TokenError
from hsmagent.frame import wipe
from hsmagent.model import Key, KeyType, printable, quoted
from hsmagent.ssh import certificates, keys, signature, signed_data, wire
from hsmagent.ssh.keys import PublicKey, SkPublicKey
from hsmagent.ssh.patterns import matches_list
from hsmagent.ssh.signed_data import UserAuth
from hsmagent.ssh.sk_helper import Helper, Sign, read_reply
from hsmagent.ssh.software import COMMENT_LIMIT
from hsmagent.ssh.wire import Reader

SSH_SK_USER_PRESENCE_REQD = 0x01

# Bytes. Authenticators' handles have about a hundred, and CTAP 2 allows about a thousand. Handles
# are not in lists, so the limit on lists does not bound them.
HANDLE_LIMIT = 4096

WEBSAFE = ("ssh:*",)
"""ssh-agent's own pattern for applications that cannot be web sites."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What an authenticator needs to sign. flags: SSH_SK_*. handle: its own name for the key."""

    public: SkPublicKey
    flags: int
    handle: bytes = field(repr=False)
    reserved: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Write it as message 17 and ssh-sk-helper have it, without a certificate."""
        fields = bytes((self.flags,)) + wire.string(self.handle) + wire.string(self.reserved)
        return keys.encode(self.public) + fields

    def describe(self, label: str) -> Key:
        """Return the key as `model.Key`."""
        touch = bool(self.flags & SSH_SK_USER_PRESENCE_REQD)
        return replace(keys.describe(self.public, label=label), touch=touch)


@dataclass(frozen=True, slots=True)
class Added:
    """An added key: the blob it is offered under (plain, or a certificate), its comment."""

    blob: bytes
    comment: str
    private: PrivateKey


def is_fido(key_type: str) -> bool:
    """Whether keys of this type are FIDO keys, or certificates of such."""
    return keys.plain_type(key_type) in keys.SK


def read(reader: Reader) -> Added:
    """Read a FIDO key and its comment; constraints may follow. Raises ProtocolError."""
    name, blob = reader.text(), b""
    if certificates.is_certificate(name):
        blob = reader.string()
        public = _certified(reader, name, blob)
    else:
        public = keys.read(reader, name)
    if not isinstance(public, SkPublicKey):
        raise ProtocolError("a FIDO key is of another type")
    private = PrivateKey(public, reader.u8(), reader.string(), reader.string())
    if len(private.handle) + len(private.reserved) > HANDLE_LIMIT:
        raise ProtocolError("a FIDO key's handle is too long")
    comment = printable(reader.text(), COMMENT_LIMIT)
    return Added(blob or keys.encode(public), comment, private)


def _certified(reader: Reader, name: str, blob: bytes) -> PublicKey:
    """Return a certificate's key; the fields that the message repeats of it must be the same."""
    public = certificates.parse(blob).body.key
    # They are the end of the key's blob: the application, and for Ed25519 the key before it.
    repeated = wire.string(reader.string()) if keys.plain_type(name) == keys.SK_ED25519 else b""
    repeated += wire.text(reader.text())
    if keys.type_name(blob) != name or not keys.encode(public).endswith(repeated):
        raise ProtocolError("a certificate and its FIDO key do not belong together")
    return public


class FidoSigner:
    """A FIDO key. Implements `signer.SshSigner`. provider: "internal", or a library's path."""

    def __init__(self, private: PrivateKey, label: str, provider: str, helper: Helper) -> None:
        self.key = private.describe(label)
        self._private = private
        self._provider = provider
        self._helper = helper

    async def sign(self, data: bytes, flags: int, pin: bytearray | None = None) -> bytes:  # noqa: ARG002 - SshSigner's signature
        """Have the authenticator sign, and check the signature. Wipes `pin`.

        Raises PinNeeded when it wants its PIN and `pin` is None, PinIncorrect, TokenError.
        """
        request = Sign(self._private.encode(), self._provider, data).encode(pin)
        try:
            reply = await self._helper(request)
        finally:
            wipe(request)
            if pin is not None:
                wipe(pin)
        try:
            blob = read_reply(reply, name_of(self.key), with_pin=pin is not None)
            sound = signature.verifies(self._private.public, blob, data)
        except ProtocolError as error:
            raise TokenError(f"ssh-sk-helper talks nonsense: {error}") from None
        if not sound:
            raise TokenError(f"the signature that came for {name_of(self.key)} is not its own")
        return blob


def name_of(key: Key) -> str:
    """Return a FIDO key's name for a sentence, in quotes."""
    return quoted(key.label or "unnamed", 60)


def check_origin(
    key: Key, blob: bytes, data: bytes, login: UserAuth | None, websafe: Iterable[str]
) -> None:
    """Raise Refused for what a web site's FIDO key must not sign.

    Else whoever can reach the agent could log in to that site, since WebAuthn signs as ssh does. So
    a key whose application matches no pattern of `websafe` signs only what cannot be a site's
    challenge: a login with this key, or an SSHSIG. blob: the key's or certificate's, as the request
    names it.
    """
    if key.key_type not in (KeyType.EC_SK, KeyType.ED25519_SK):
        return
    if matches_list(key.application, websafe):
        return
    if login is not None and signed_data.names_key(login, blob):
        return
    if signed_data.read_sshsig(data) is None:
        raise Refused(
            f"the FIDO key {name_of(key)} is for {quoted(key.application, 60)}, and so signs "
            "nothing but ssh's logins and messages"
        )
