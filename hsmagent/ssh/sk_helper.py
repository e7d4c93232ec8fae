"""What is said to OpenSSH's ssh-sk-helper, the program that speaks to FIDO authenticators.

Of its protocol (ssh-sk-client.c and ssh-sk-helper.c of OpenSSH 8.3 and later) we use one request
and its reply, each a frame. The program itself is started by `hsmagent.daemon.sk_helper`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hsmagent.errors import PinIncorrect, PinNeeded, ProtocolError, TokenError, TokenGone
from hsmagent.ssh import wire
from hsmagent.ssh.wire import Reader

SSH_SK_HELPER_VERSION = 5
SSH_SK_HELPER_ERROR = 0
SSH_SK_HELPER_SIGN = 1
# What SSH_SK_HELPER_ERROR carries: OpenSSH's error codes (ssherr.h), without their sign.
SSH_ERR_KEY_WRONG_PASSPHRASE = 43
SSH_ERR_FEATURE_UNSUPPORTED = 59
SSH_ERR_DEVICE_NOT_FOUND = 60

SYSLOG_LEVEL_ERROR = 2

Helper = Callable[[bytearray], Awaitable[bytes]]
"""Hands a request to a new ssh-sk-helper and returns its reply; bodies of frames.

Raises TokenError when there is no such program, or it fails, or does not answer in time.
"""


@dataclass(frozen=True, slots=True)
class Sign:
    """Have `data` signed by a private key, as `fido.PrivateKey.encode` writes it.

    provider: "internal", or a library's path.
    """

    key: bytes = field(repr=False)
    provider: str
    data: bytes = field(repr=False)

    def encode(self, pin: bytearray | None) -> bytearray:
        """Write the request, for the caller to wipe; `pin` too stays the caller's."""
        body = bytearray((SSH_SK_HELPER_VERSION,))
        body += wire.u32(SSH_SK_HELPER_SIGN)
        body += b"\1" + wire.u32(SYSLOG_LEVEL_ERROR)  # what goes wrong, to stderr
        body += wire.string(self.key) + wire.text(self.provider) + wire.string(self.data)
        body += wire.text("")  # the algorithm: only webauthn has a choice
        body += wire.u32(0)  # quirks of an ssh peer
        given = b"" if pin is None else pin
        body += wire.u32(len(given))
        body += given
        return body


def read_reply(body: bytes, name: str, *, with_pin: bool) -> bytes:
    """Return the signature blob in a reply to `Sign`.

    name: the key's, for sentences; with_pin: a PIN was given. Raises PinNeeded, PinIncorrect,
    TokenGone, TokenError, and ProtocolError for nonsense.
    """
    reader = Reader(body)
    version = reader.u8()
    if version != SSH_SK_HELPER_VERSION:
        raise TokenError(
            f"ssh-sk-helper speaks version {version} of its protocol, and only version "
            f"{SSH_SK_HELPER_VERSION} is known here; is it of another OpenSSH release?"
        )
    kind = reader.u32()
    if kind == SSH_SK_HELPER_ERROR:
        raise _error(reader.u32(), name, with_pin=with_pin)
    if kind != SSH_SK_HELPER_SIGN:
        raise ProtocolError("ssh-sk-helper answered another request")
    blob = reader.string()
    reader.end()
    return blob


def _error(code: int, name: str, *, with_pin: bool) -> TokenError:
    match code:
        case c if c == SSH_ERR_KEY_WRONG_PASSPHRASE and with_pin:
            return PinIncorrect(f"the PIN of the FIDO key {name} is wrong")
        case c if c == SSH_ERR_KEY_WRONG_PASSPHRASE:
            return PinNeeded(f"the FIDO key {name} wants its PIN")
        case c if c == SSH_ERR_DEVICE_NOT_FOUND:
            return TokenGone(f"no authenticator here has the FIDO key {name}: plug it in")
        case c if c == SSH_ERR_FEATURE_UNSUPPORTED:
            return TokenError(f"the authenticator cannot do what the FIDO key {name} wants")
    return TokenError(
        f"the FIDO key {name} did not sign: was it touched in time, or is its PIN blocked?"
    )
