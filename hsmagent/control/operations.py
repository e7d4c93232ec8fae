"""What the control socket can ask for: one method for each operation."""

import asyncio
import base64
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent import __version__
from hsmagent.config.toml import Expected, duration
from hsmagent.control.conversation import Answer, Fields, Operation
from hsmagent.control.names import exact_uri, find_key, find_token, fingerprint_of
from hsmagent.door.activity import Activity, sentence
from hsmagent.door.gate import Gate
from hsmagent.errors import PinError, Refused, TriesLow, Unavailable, UsageError
from hsmagent.limit import RateLimit
from hsmagent.model import (
    Clock,
    EcdhUnwrap,
    Key,
    PinState,
    Purpose,
    PurposeKind,
    Request,
    RsaUnwrap,
    Scheme,
    TokenId,
    TokenStatus,
    Unwrap,
    printable,
)
from hsmagent.prompt import words
from hsmagent.ssh.identities import comment_of
from hsmagent.ssh.keys import authorized_key, blob_of
from hsmagent.ssh.signed_data import is_one_der_value
from hsmagent.token.failures import locked
from hsmagent.token.tokens import Tokens, TokenSigner
from hsmagent.token.unwrap import unwrap

SET = 0x31
MAX_CONTENT_KEY = 64
PURPOSES = (PurposeKind.MAIL, PurposeKind.GIT, PurposeKind.REQUEST)
# A mailbox full of old mail is read at leisure; an attack on the padding needs thousands.
UNWRAPS = (120, 60.0)


class Operations:
    """The operations over the tokens and the gate."""

    def __init__(
        self,
        tokens: Tokens,
        gate: Gate,
        activity: Activity,
        forget_pin: Callable[[TokenId], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._gate = gate
        self._activity = activity
        self._forget_pin = forget_pin
        self._unwraps = RateLimit(*UNWRAPS, clock)

    def table(self) -> dict[str, Operation]:
        """Return the operations by name."""
        return {
            "status": self.status,
            "keys": self.keys,
            "pubkey": self.pubkey,
            "log": self.log,
            "unlock": self.unlock,
            "lock": self.lock,
            "forget_pin": self.forget_pin,
            "sign_attributes": self.sign_attributes,
            "unwrap": self.unwrap,
        }

    # -- looking -----------------------------------------------------------------------------

    async def status(self, _fields: Fields) -> Answer:
        """Tokens and modules."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "tokens": [_token(status) for status in self._tokens.statuses()],
            "modules": [
                {"path": module.path, "state": module.state, "error": module.last_error}
                for module in self._tokens.modules()
            ],
        }

    async def keys(self, _fields: Fields) -> Answer:
        """Every key, and what was skipped."""
        statuses = self._tokens.statuses()
        return {
            "keys": [_key(signer.key) for signer in self._tokens.signers()],
            "notes": [
                f"{words.token_name(status.id)}: {printable(note, 400)}"
                for status in statuses
                for note in status.notes
            ],
        }

    async def pubkey(self, fields: Fields) -> Answer:
        """One public key, as an SSH line (null where ssh has no name for it) and as PEM."""
        key = find_key(fields.text("key"), self._all_keys())
        pem = load_der_public_key(key.spki).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return {"ssh": _ssh_line(key), "pem": pem.decode()}

    async def log(self, fields: Fields) -> Answer:
        """Return recent activity, from `since` on: a duration before now ("2h") or an ISO time."""
        lines = self._activity.entries(_since(fields.text("since", "")))
        return {"entries": [line | {"text": sentence(line)} for line in lines]}

    # -- login -------------------------------------------------------------------------------

    async def unlock(self, fields: Fields) -> Answer:
        """First half of an unlock: say which token, and how its PIN is to be given."""
        session = self._tokens.session(self.find_token(fields.text("token", "")))
        if not session.logged_in:
            await session.look()  # other programs use up tries, and unblock PINs
        status = session.status()
        if not status.logged_in and status.pin_state is PinState.LOCKED:
            raise locked(status.id)
        if not status.logged_in and status.pin_state is PinState.NOT_SET:
            raise PinError(words.not_set(status.id))
        return {
            "token": words.token_name(status.id),
            "uri": exact_uri(status.id),
            "logged_in": status.logged_in or not status.login_required,
            "pin_pad": status.pin_pad,
            "pin_state": status.pin_state,
            "warning": " ".join(
                filter(None, (words.tries(status.pin_state), words.tpm_note(status.id)))
            ),
        }

    async def unlock_with(self, token: TokenId, pin: bytearray, last_try: bool) -> None:  # noqa: FBT001 - a callback's signature
        """Second half: log in with the PIN that was typed; one C_Login, whatever comes of it."""
        status = self._tokens.session(token).status()
        if not pin and not status.pin_pad:
            raise UsageError("the PIN is empty; nothing was tried")
        at_worst = PinState.FINAL_TRY if last_try else PinState.COUNT_LOW
        unlocking = asyncio.ensure_future(
            self._gate.unlock(token, None if status.pin_pad else pin, at_worst)
        )
        unlocking.add_done_callback(lambda done: done.cancelled() or done.exception())
        # The login goes on when the terminal hangs up, and those who wait for it must learn of it.
        try:
            await asyncio.shield(unlocking)
        except TriesLow:
            if last_try:
                raise
            # Others have used up tries while the person typed.
            raise Refused(words.LAST_TRY + " The PIN was not tried.") from None

    async def lock(self, fields: Fields) -> Answer:
        """Log out of one token, or of all; forget remembered confirmations."""
        name = fields.text("token", "")
        chosen = [self.find_token(name)] if name else [s.id for s in self._tokens.statuses()]
        open_ones = [token for token in chosen if self._tokens.session(token).logged_in]
        self._gate.forget()
        await self._tokens.logout(chosen)  # the closed ones too: a login may be under way
        return {"tokens": [words.token_name(token) for token in open_ones]}

    async def forget_pin(self, fields: Fields) -> Answer:
        """Delete a token's PIN from the desktop's keyring."""
        token = self.find_token(fields.text("token", ""))
        if not await self._forget_pin(token):
            raise Unavailable("the keyring cannot be asked; the PIN in it will not be used again")
        return {"token": words.token_name(token)}

    # -- mail --------------------------------------------------------------------------------

    async def sign_attributes(self, fields: Fields) -> Answer:
        """Sign a mail's signed attributes: the DER SET OF, hashed here; never a ready digest."""
        attributes = fields.binary("attributes")
        if attributes[:1] != bytes([SET]) or not is_one_der_value(attributes):
            raise UsageError("the signed attributes must be one DER SET")
        scheme = _one_of(Scheme, fields.text("scheme"))
        signer = self._signer(fields)
        request = _request(fields, signer.key, "sign")
        signature = await self._gate.perform(
            request, lambda pin: signer.sign(scheme, attributes, pin)
        )
        return {"signature": _b64(signature)}

    async def unwrap(self, fields: Fields) -> Answer:
        """Unwrap a content key. A failure gives a random key: nobody learns more than that."""
        length = fields.number("length", 1, MAX_CONTENT_KEY)
        what = _unwrap(fields.fields("recipient"))
        signer = self._signer(fields)
        request = _request(fields, signer.key, "decrypt")
        if not self._unwraps.admit():
            raise Refused("too many decryptions in a short time; wait a minute")

        async def operation(pin: bytearray | None) -> bytes:
            return await unwrap(signer, what, length, pin)

        return {"key": _b64(await self._gate.perform(request, operation))}

    # -- finding -----------------------------------------------------------------------------

    def find_token(self, name: str) -> TokenId:
        """Return the token of that name; with "" the only one that has a PIN. Raises UsageError."""
        present = [status for status in self._tokens.statuses() if status.present]
        locking = [] if name else [status for status in present if status.login_required]
        return find_token(name, [status.id for status in locking or present])

    def _all_keys(self) -> list[Key]:
        return [signer.key for signer in self._tokens.signers()]

    def _signer(self, fields: Fields) -> TokenSigner:
        spki = fields.binary("key")
        for signer in self._tokens.signers():
            if signer.key.spki == spki:
                return signer
        raise UsageError("the key is not on any token that is present")


# -- values to JSON and back -----------------------------------------------------------------


def _token(status: TokenStatus) -> Answer:
    return {
        "label": words.token_name(status.id),
        "serial": printable(status.id.serial),
        "model": printable(status.id.model),
        "module": status.id.module,
        "uri": status.id.uri,
        "present": status.present,
        "login_required": status.login_required,
        "logged_in": status.logged_in,
        "pin_state": status.pin_state,
        "pin_pad": status.pin_pad,
        "idle_left": status.idle_left,
        "max_left": status.max_left,
        "keys": len(status.keys),
        "last_error": status.last_error,
    }


def _key(key: Key) -> Answer:
    return {
        "label": printable(key.label),
        "token": words.token_name(key.token) if key.token else "",
        "kind": words.key_kind(key),
        "uri": key.uri,
        "ssh": _ssh_line(key),
        "fingerprint": fingerprint_of(key),
        "certificates": [_certificate_line(der) for der in key.certificates],
        "spki": _b64(key.spki),
        "certificates_der": [_b64(der) for der in key.certificates],
        "key_type": key.key_type,
        "bits": key.bits,
        "curve": key.curve,
        "can_sign": key.can_sign,
        "can_decrypt": key.can_decrypt,
        "can_derive": key.can_derive,
    }


def _ssh_line(key: Key) -> str | None:
    blob = blob_of(key.spki)
    return None if blob is None else authorized_key(blob, comment_of(key))


def _certificate_line(der: bytes) -> str:
    try:
        certificate = x509.load_der_x509_certificate(der)
        until = certificate.not_valid_after_utc.date()
        return f"{printable(certificate.subject.rfc4514_string())}, valid until {until}"
    except (ValueError, TypeError):
        return "unreadable certificate"


def _request(fields: Fields, key: Key, verb: str) -> Request:
    context = fields.fields("context")
    kind = _one_of(PurposeKind, context.text("purpose", PurposeKind.MAIL))
    if kind not in PURPOSES:
        raise UsageError(f"the control socket does not sign for {kind}")
    summary = printable(f"{verb} {context.text('what', 'a mail')}", 200)
    return Request(key, Purpose(kind, summary), fields.peer())


def _unwrap(fields: Fields) -> Unwrap:
    match fields.text("kind"):
        case "rsa":
            return RsaUnwrap(
                encrypted_key=fields.binary("encrypted_key"),
                padding=fields.text("padding"),
                oaep_hash=fields.text("oaep_hash", "sha1"),
                mgf_hash=fields.text("mgf_hash", "sha1"),
                label=fields.binary("label"),
            )
        case "ecdh":
            return EcdhUnwrap(
                encrypted_key=fields.binary("encrypted_key"),
                point=fields.binary("point"),
                kdf_hash=fields.text("kdf_hash"),
                wrap_bits=fields.number("wrap_bits", 128, 256),
                shared_info=fields.binary("shared_info"),
                cofactor=fields.flag("cofactor"),
            )
    raise UsageError("the recipient's kind must be rsa or ecdh")


def _since(text: str) -> float:
    if not text:
        return 0.0
    with suppress(Expected):
        return time.time() - duration(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{printable(text)!r} is no time; give one such as 2h, 3d or 2026-05-01T12:00"
        ) from None


E = TypeVar("E", bound=StrEnum)


def _one_of(enum: type[E], value: str) -> E:
    try:
        return enum(value)
    except ValueError:
        raise UsageError(f"{printable(value)!r} is none of: {', '.join(enum)}") from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
