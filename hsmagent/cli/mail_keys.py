"""The token keys for the mail side, held by the daemon."""

import base64
from collections.abc import Sequence
from typing import Any

from hsmagent import uri
from hsmagent.control.client import Daemon
from hsmagent.mail.keys import Context
from hsmagent.model import (
    EcdhUnwrap,
    Key,
    KeyType,
    PurposeKind,
    RsaUnwrap,
    Scheme,
    TokenId,
    Unwrap,
    printable,
)

GIT = "git"
_DECODED_MAX = 2000


class DaemonKeys:
    """The token keys, over the control socket. Implements `mail.keys.MailKeys`."""

    def __init__(self) -> None:
        self._daemon = Daemon()

    def keys(self) -> Sequence[Key]:
        """Return the keys with their certificates."""
        return [_key(answer) for answer in self._daemon.call("keys")["keys"]]

    def sign_attributes(
        self, key: Key, scheme: Scheme, attributes: bytes, context: Context
    ) -> bytes:
        """Sign a mail's signed attributes; the daemon hashes them, and may ask the person."""
        answer = self._daemon.call(
            "sign_attributes",
            key=_b64(key.spki),
            scheme=scheme,
            attributes=_b64(attributes),
            context=_context(context),
        )
        return base64.b64decode(answer["signature"])

    def unwrap(self, key: Key, what: Unwrap, length: int, context: Context) -> bytes:
        """Return a content key: the right one, or a random one that nobody can tell from it."""
        answer = self._daemon.call(
            "unwrap",
            key=_b64(key.spki),
            recipient=_recipient(what),
            length=length,
            context=_context(context),
        )
        return base64.b64decode(answer["key"])


def _key(answer: dict[str, Any]) -> Key:
    named = uri.parse(answer["uri"])
    return Key(
        spki=base64.b64decode(answer["spki"]),
        key_type=KeyType(answer["key_type"]),
        bits=answer["bits"],
        curve=answer["curve"],
        label=named.object or "",
        token=TokenId(
            "", named.token or "", named.serial or "", named.model or "", named.manufacturer or ""
        ),
        id=named.id or b"",
        certificates=tuple(map(base64.b64decode, answer["certificates_der"])),
        can_sign=answer["can_sign"],
        can_decrypt=answer["can_decrypt"],
        can_derive=answer["can_derive"],
    )


def _context(context: Context) -> dict[str, str]:
    """Return what the prompt tells: a git object, or a mail's subject and sender."""
    kind = PurposeKind.GIT if context.program == GIT else PurposeKind.MAIL
    what = "a git object" if kind is PurposeKind.GIT else "a mail"
    if context.sender:
        what += " from " + printable(_readable(context.sender), 60)
    if context.subject:
        what += f" “{printable(_readable(context.subject), 80)}”"
    return {"purpose": kind, "what": what}


def _readable(value: str) -> str:
    """Decode the encoded words of a header field (RFC 2047), where it has any.

    Of its beginning only: the decoder takes quadratic time, and little of it is shown.
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


def _recipient(what: Unwrap) -> dict[str, object]:
    match what:
        case RsaUnwrap():
            return {
                "kind": "rsa",
                "encrypted_key": _b64(what.encrypted_key),
                "padding": what.padding,
                "oaep_hash": what.oaep_hash,
                "mgf_hash": what.mgf_hash,
                "label": _b64(what.label),
            }
        case EcdhUnwrap():
            return {
                "kind": "ecdh",
                "encrypted_key": _b64(what.encrypted_key),
                "point": _b64(what.point),
                "kdf_hash": what.kdf_hash,
                "wrap_bits": what.wrap_bits,
                "shared_info": _b64(what.shared_info),
                "cofactor": what.cofactor,
            }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
