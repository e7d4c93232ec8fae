"""What can be asked on the control socket, by a person's commands: a method for each operation."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent import __version__
from hsmagent.config.toml import Expected, duration
from hsmagent.control.ask_here import AskHereOperation
from hsmagent.control.client import PIN_LAST_TRY_CONFIRMED, PIN_PLAIN
from hsmagent.control.conversation import Answer, Asked, Operation, Secret
from hsmagent.control.leases import Leases
from hsmagent.control.names import find_key, find_token, fingerprint_of
from hsmagent.control.values import Fields, of_record
from hsmagent.door.activity import Activity, Line, sentence, wish_to_unlock
from hsmagent.door.gate import Gate
from hsmagent.errors import Refused, TriesLow, Unavailable, UsageError
from hsmagent.model import (
    Key,
    Peer,
    PinState,
    Request,
    TokenId,
    TokenStatus,
    printable,
    token_name,
)
from hsmagent.prompt import words
from hsmagent.ssh.identities import comment_of
from hsmagent.ssh.keys import authorized_key, blob_for
from hsmagent.token.login import check_usable
from hsmagent.token.tokens import Tokens

NOTE_LIMIT = 400
WAITING_LISTED = 20


class ControlOperations:
    """The operations of the control socket, over the tokens and the gate.

    added: returns the keys that ssh-add has brought.
    """

    def __init__(
        self,
        tokens: Tokens,
        added: Callable[[], Sequence[Key]],
        gate: Gate,
        activity: Activity,
        forget_pin: Callable[[TokenId], Awaitable[bool]],
        *,
        leases: Leases,
        ask_here: AskHereOperation,
    ) -> None:
        self._tokens = tokens
        self._added = added
        self._gate = gate
        self._activity = activity
        self._forget_pin = forget_pin
        self._leases = leases
        self._ask_here = ask_here

    def table(self) -> dict[str, Operation]:
        """Return the operations by name."""
        return {
            "status": self.status,
            "keys": self.keys,
            "pubkey": self.pubkey,
            "log": self.log,
            "news": self.news,
            "unlock": self.unlock,
            "lock": self.lock,
            "refresh": self.refresh,
            "forget_pin": self.forget_pin,
            "foretell": self._leases.foretell,
            "let_go": self._leases.let_go,
            "take_back": self._leases.take_back,
            "ask_here": self._ask_here.open,
        }

    # -- looking -----------------------------------------------------------------------------

    async def status(self, _fields: Fields) -> Answer:
        """Return the tokens, the modules, and what waits for a person."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "tokens": [self._token(status) for status in self._tokens.statuses()],
            "modules": [
                {
                    "path": module.path,
                    "state": module.state,
                    "error": printable(module.last_error, NOTE_LIMIT),
                    "named": module.named,
                    "notes": [printable(note, NOTE_LIMIT) for note in module.notes],
                }
                for module in self._tokens.modules()
            ],
            "leases": self._leases.shown(),
            "ask_here": self._ask_here.shown(),
            "waiting": [
                {
                    "wants": pending.wants,
                    "key": words.key_line(pending.request.key),
                    "request": words.request_line(pending.request),
                }
                for pending in self._gate.pending()[:WAITING_LISTED]
            ],
        }

    def _token(self, status: TokenStatus) -> Answer:
        last = self._activity.last_use(token_name(status.id))
        use = last and {"time": last["time"], "text": sentence(last)}
        return _token(status) | {"last_use": use}

    async def keys(self, _fields: Fields) -> Answer:
        """Return every key, and notes on what was skipped."""
        statuses = self._tokens.statuses()
        return {
            "keys": [_key(key) for key in self._all_keys()],
            "notes": [
                f"{token_name(status.id)}: {printable(note, NOTE_LIMIT)}"
                for status in statuses
                for note in status.notes
            ]
            + [
                f"{module.path}: {printable(note, NOTE_LIMIT)}"
                for module in self._tokens.modules()
                for note in module.notes
            ],
        }

    async def pubkey(self, fields: Fields) -> Answer:
        """Return one public key, as an SSH line (null where ssh has no name for it) and as PEM."""
        await self._tokens.looked()
        key = find_key(fields.text("key"), self._all_keys())
        pem = load_der_public_key(key.spki).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return {"ssh": _ssh_line(key), "pem": pem.decode()}

    async def log(self, fields: Fields) -> Answer:
        """Return recent activity, from `since` on: a duration before now ("2h") or an ISO time.

        `seen` in the answer is what to ask `news` with.
        """
        answer = told(self._activity, fields.text("since", ""))
        return answer | {"seen": self._activity.news(0)[0]}

    async def news(self, fields: Fields) -> Answer:
        """Return what was written down since an answer that said `seen`."""
        seen, lines = self._activity.news(fields.number("seen", 0, 1 << 53))
        return {"entries": _in_words(lines), "seen": seen}

    # -- login -------------------------------------------------------------------------------

    async def unlock(self, asked: Asked) -> Answer | Secret:
        """First half of an unlock: say which token, and how its PIN is to be given.

        An unlocked token still wants its PIN if a request waits whose key wants it for each use.
        An unlock breaks the lease of the token's module, since the lease's holder may be stuck.
        """
        await self._tokens.looked()
        name = self._find_token(asked.text("token", ""), self._leases.tokens())
        await self._leases.end(name.module)
        token = self._tokens.token(name)
        if not token.logged_in:
            await token.look()  # other programs use up tries, and unblock PINs
        status = token.status()
        wants = self._gate.wants_pin(status.id)
        if not status.logged_in or wants is not None:
            check_usable(status)
        answer = {
            "token": token_name(status.id),
            "logged_in": wants is None and (status.logged_in or not status.login_required),
            "waiting": "" if wants is None else words.describe([wants]),
            "pin_pad": status.pin_pad,
            "pin_state": status.pin_state,
            "warning": " ".join(
                filter(None, (words.tries(status.pin_state), words.tpm_note(status.id)))
            ),
        }
        if answer["logged_in"]:
            return answer
        return Secret(answer, partial(self._log_in, status.id, wants, asked.peer))

    async def _log_in(
        self,
        token: TokenId,
        wants: Request | None,
        peer: Callable[[], Peer],
        secret: bytearray,
    ) -> Answer:
        """Take the frame after `unlock`, a byte of flags and the PIN: one C_Login in any case."""
        if secret[0] not in (PIN_PLAIN, PIN_LAST_TRY_CONFIRMED):
            raise UsageError("the frame after unlock holds no PIN; nothing was tried")
        status = self._tokens.token(token).status()
        last_try = secret[0] == PIN_LAST_TRY_CONFIRMED
        if len(secret) == 1 and not status.pin_pad:
            raise UsageError("the PIN is empty; nothing was tried")
        at_worst = PinState.FINAL_TRY if last_try else PinState.COUNT_LOW
        # A copy of the PIN, which the gate wipes. A login that has begun goes on when the terminal
        # hangs up, and the requests that wait for it must learn of it.
        pin = None if status.pin_pad else secret[1:]
        unlocking = asyncio.ensure_future(
            self._gate.unlock(token, pin, at_worst, wants, wish_to_unlock(token, peer()))
        )
        unlocking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(unlocking)
        except TriesLow:
            if last_try:
                raise
            # Others have used up tries while the person typed.
            raise Refused(words.LAST_TRY + " The PIN was not tried.") from None
        return {}

    async def lock(self, fields: Fields) -> Answer:
        """Log out of one token, or of all; forget remembered confirmations."""
        name = fields.text("token", "")
        chosen = [self._find_token(name)] if name else [s.id for s in self._tokens.statuses()]
        open_ones = [token for token in chosen if self._tokens.token(token).logged_in]
        self._gate.forget()
        await self._tokens.logout(chosen)  # the closed ones too: a login may be under way
        return {"tokens": [token_name(token) for token in open_ones]}

    async def refresh(self, _fields: Fields) -> Answer:
        """Look at every token anew, with new workers. Return whose logins that has ended."""
        open_ones = [status.id for status in self._tokens.statuses() if status.logged_in]
        await self._tokens.logout_all()
        await self._tokens.refresh()
        return {
            "tokens": [token_name(token) for token in open_ones],
            "keys": len(self._tokens.signers()),
        }

    async def forget_pin(self, fields: Fields) -> Answer:
        """Delete a token's PIN from the desktop's keyring."""
        token = self._find_token(fields.text("token", ""))
        if not await self._forget_pin(token):
            raise Unavailable("the keyring cannot be asked; the PIN in it will not be used again")
        return {"token": token_name(token)}

    # -- finding -----------------------------------------------------------------------------

    def _find_token(self, name: str, lent: Sequence[TokenStatus] = ()) -> TokenId:
        """Return the token of that name; with "" the only one that has a PIN. Raises UsageError.

        lent: tokens that management has at the moment, and that may be meant too.
        """
        present = [status for status in (*self._tokens.statuses(), *lent) if status.present]
        locking = [] if name else [status for status in present if status.login_required]
        return find_token(name, [status.id for status in locking or present])

    def _all_keys(self) -> list[Key]:
        return [*(signer.key for signer in self._tokens.signers()), *self._added()]


# -- what a person is shown --------------------------------------------------------------------


def _token(status: TokenStatus) -> Answer:
    return {
        "label": token_name(status.id),
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
        "login_age": status.login_age,
        "idle_limit": status.idle_limit,
        "keys": len(status.keys),
        "last_error": printable(status.last_error, NOTE_LIMIT),
        "notes": [printable(note, NOTE_LIMIT) for note in status.notes],
    }


def _key(key: Key) -> Answer:
    fields = of_record(key)
    return fields | {
        "label": printable(key.label),
        "application": printable(key.application),
        "token": token_name(key.token) if key.token else "",
        "kind": words.key_kind(key),
        "uri": key.uri,
        "ssh": _ssh_line(key),
        "fingerprint": fingerprint_of(key),
        "certificates": [_certificate_line(der) for der in key.certificates],
        "certificates_der": fields["certificates"],
    }


def _ssh_line(key: Key) -> str | None:
    blob = blob_for(key)
    return None if blob is None else authorized_key(blob, comment_of(key))


def _certificate_line(der: bytes) -> str:
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        until = certificate.not_valid_after_utc.date()
        return f"{printable(certificate.subject.rfc4514_string())}, valid until {until}"
    except (ValueError, TypeError):
        return "unreadable certificate"


def told(activity: Activity, since: str) -> Answer:
    """Return the answer to `log`. Raises UsageError when `since` is no time."""
    return {"entries": _in_words(activity.entries(_since(since)))}


def _in_words(lines: Sequence[Line]) -> list[Answer]:
    return [line | {"text": sentence(line)} for line in lines]


def _since(text: str) -> float:
    if not text:
        return 0.0
    with suppress(Expected):
        return time.time() - duration(text)
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{printable(text)!r} is no time; give one such as 2h, 3d or 2026-05-01T12:00"
        ) from None
