"""The control protocol, daemon side: JSON in u32 frames, one answer to each request.

A request is `{"op": …, field: …}`, an answer `{"ok": {…}}` or `{"error": sentence}`, with
`"usage": true` where the request itself was wrong; binary travels as base64. The one exception is
the frame after `unlock`: a byte of flags and the PIN, raw, so that it can be wiped here and there.
"""

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hsmagent.control.client import PIN_LAST_TRY_CONFIRMED, PIN_PLAIN
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.frame import wipe
from hsmagent.model import Peer, TokenId, printable

log = logging.getLogger(__name__)

Answer = dict[str, Any]


class Fields:
    """The fields of one request, typed on the way out. All raise UsageError."""

    def __init__(self, values: Mapping[str, object], peer: Callable[[], Peer]) -> None:
        self._values = values
        self.peer = peer

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text field."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise UsageError(f"the request needs a text field {name!r}")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"the request needs a number {name!r} from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false; false when it is not there."""
        return self._values.get(name, False) is True

    def binary(self, name: str) -> bytes:
        """Return the bytes of a base64 field."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (binascii.Error, ValueError):
            raise UsageError(f"the field {name!r} of the request is not base64") from None

    def fields(self, name: str) -> "Fields":
        """Return a nested object."""
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise UsageError(f"the request needs an object {name!r}")
        return Fields(value, self.peer)


Operation = Callable[[Fields], Awaitable[Answer]]
Unlock = Callable[[TokenId, bytearray, bool], Awaitable[None]]
"""Logs in to a token with a PIN, which it wipes; the flag says that a last try was confirmed.

A login that has begun goes on when it is cancelled, so nobody else may wipe the PIN.
"""


class Conversation:
    """One connection of the control socket. Implements `server.Conversation`."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        find_token: Callable[[str], TokenId],
        unlock: Unlock,
        peer: Callable[[], Peer],
    ) -> None:
        self._operations = operations
        self._find_token = find_token
        self._unlock = unlock
        self._peer = peer
        self._unlocking: TokenId | None = None

    def respond_now(self, body: bytearray) -> bytes | None:  # noqa: ARG002 - everything waits
        """Return None: every operation may wait."""
        return None

    def end(self) -> None:
        """Let go of nothing: a connection holds nothing."""

    async def respond(self, body: bytearray) -> bytes:
        """Carry out one request; every failure becomes an answer."""
        try:
            answer = await self._answer(body)
        except HsmAgentError as error:
            refusal: Answer = {"error": str(error)}
            if isinstance(error, UsageError):
                refusal["usage"] = True
            return json.dumps(refusal).encode()
        finally:
            wipe(body)
        return json.dumps({"ok": answer}).encode()

    async def _answer(self, body: bytearray) -> Answer:
        if self._unlocking is not None:
            token, self._unlocking = self._unlocking, None
            if body[0] not in (PIN_PLAIN, PIN_LAST_TRY_CONFIRMED):
                raise UsageError("the frame after unlock holds no PIN; nothing was tried")
            pin = body[1:]
            await self._unlock(token, pin, body[0] == PIN_LAST_TRY_CONFIRMED)
            return {}
        fields = self._read(body)
        op = fields.text("op")
        if op not in self._operations:
            raise UsageError(
                f"the daemon knows no operation {printable(op)!r}; is it an older one?"
            )
        answer = await self._operations[op](fields)
        if op == "unlock" and not answer["logged_in"]:
            self._unlocking = self._find_token(answer["uri"])
        return answer

    def _read(self, body: bytearray) -> Fields:
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            raise UsageError("the request is not JSON") from None
        if not isinstance(values, dict):
            raise UsageError("the request is not a JSON object")
        return Fields(values, self._peer)
