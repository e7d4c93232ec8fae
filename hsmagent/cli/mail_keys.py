"""The tokens' keys for mail programs, over the daemon's mail socket."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hsmagent.control.client import MAIL, Daemon
from hsmagent.control.values import from_base64, of_unwrap, to_base64, to_key
from hsmagent.mail.keys import Context
from hsmagent.model import Key, PurposeKind, Scheme, printable

if TYPE_CHECKING:
    from hsmagent.unwraps import Unwrap

GIT = "git"
FILES = "hsmagent file"
_WHAT = {GIT: "a git object", FILES: "a file"}
_DECODED_MAX = 2000


class DaemonKeys:
    """The token keys, over the daemon's mail socket. Implements `mail.keys.MailKeys`."""

    def __init__(self) -> None:
        self._daemon = Daemon(role=MAIL, on_wait=self._say_once)
        self._said = False
        self._read_gcm: bool | None = None

    def _say_once(self, sentence: str, on_terminal: bool) -> None:  # noqa: FBT001 - Daemon's
        """Say why nothing happens, unless stderr is a terminal that shows the sentence already."""
        if not self._said and not (on_terminal and sys.stderr.isatty()):
            print(f"hsmagent: {printable(sentence, 400)}", file=sys.stderr, flush=True)
        self._said = True

    def keys(self) -> Sequence[Key]:
        """Return the keys with their certificates."""
        answer = self._daemon.call("keys")
        self._read_gcm = not answer["gnupg"]
        return [to_key(key) for key in answer["keys"]]

    def read_gcm(self) -> bool:
        """Whether all programs that decrypt with the keys know AES-GCM."""
        if self._read_gcm is None:
            self.keys()
        return bool(self._read_gcm)

    def sign_attributes(
        self, key: Key, scheme: Scheme, attributes: bytes, context: Context
    ) -> bytes:
        """Sign a mail's signed attributes; the daemon hashes them, and may ask the person."""
        answer = self._daemon.call(
            "sign_attributes",
            key=to_base64(key.spki),
            scheme=scheme,
            attributes=to_base64(attributes),
            context=_context(context),
        )
        return from_base64(answer["signature"])

    def unwrap(self, key: Key, what: "Unwrap", length: int, context: Context) -> bytes:
        """Return a content key: the right one, or a random one if the padding was wrong."""
        answer = self._daemon.call(
            "unwrap",
            key=to_base64(key.spki),
            recipient=of_unwrap(what),
            length=length,
            context=_context(context),
        )
        return from_base64(answer["key"])


def _context(context: Context) -> dict[str, str]:
    """Return what the prompt tells: a git object, a file, or a mail's subject and sender."""
    kind = PurposeKind.GIT if context.program == GIT else PurposeKind.MAIL
    what = _WHAT.get(context.program, "a mail")
    if context.sender:
        what += " from " + printable(_readable(context.sender), 60)
    if context.subject:
        what += f" “{printable(_readable(context.subject), 80)}”"
    return {"purpose": kind, "what": what}


def _readable(value: str) -> str:
    """Decode the encoded words of a header field (RFC 2047), where it has any.

    Only the beginning is decoded: the decoder takes quadratic time, and little is shown.
    """
    value = value[:_DECODED_MAX]
    if "=?" not in value:
        return value
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        return str(make_header(decode_header(value)))
    except (ValueError, LookupError, HeaderParseError):
        return value
