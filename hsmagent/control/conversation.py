"""The control protocol, daemon side: JSON in u32 frames, one answer to each request.

A request is `{"op": …, field: …}`; binary travels as base64. An answer is `{"ok": {…}}` or
`{"error": {"kind": …, "message": …}}`, the kind being the one of `errors.kind_of`. An operation may
ask for a secret: the connection's next frame goes to it raw, so that it can be wiped on both sides.
It may also tell something before its answer: an object with neither "ok" nor "error" in it.
`{"waiting": …, "on_terminal": …}` says that a person must do something first, and whether the
asker's terminal shows that already.

Operations stand in tables by role, and each table is served on a socket of its own: what a program
can ask for is decided by which of the sockets it can reach.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hsmagent.control.values import Fields
from hsmagent.errors import HsmAgentError, UsageError, kind_of
from hsmagent.frame import wipe
from hsmagent.model import Peer, printable
from hsmagent.tasks import in_a_task

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Secret:
    """An answer that asks for a secret: `take` gets the connection's next frame.

    The frame is wiped when `take` has returned or raised.
    """

    answer: Answer
    take: "Callable[[bytearray], Awaitable[Answer | Secret]]"


class Asked(Fields):
    """The fields of one request, and who asks (peer).

    at_end: takes what is to be done when the client hangs up. tell: sends an object that is no
    answer.
    """

    def __init__(
        self,
        values: object,
        peer: Callable[[], Peer],
        at_end: Callable[[Callable[[], None]], None],
        tell: Callable[[Answer], None],
    ) -> None:
        super().__init__(values)
        self.peer = peer
        self.at_end = at_end
        self.tell = tell

    def on_wait(self, sentence: str, on_terminal: bool) -> None:  # noqa: FBT001 - model.Request's
        """Tell the client that its request waits for a person (`model.Request`)."""
        self.tell({"waiting": sentence, "on_terminal": on_terminal})


Operation = Callable[[Asked], Awaitable[Answer | Secret]]


class Conversation:
    """A connection of a socket that serves these operations: a `daemon.connection.Conversation`."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        peer: Callable[[], Peer],
        send: Callable[[bytes], None],
    ) -> None:
        self._operations = operations
        self._peer = peer
        self._send = send
        self._secret: Secret | None = None
        self._at_end: list[Callable[[], None]] = []

    def end(self) -> None:
        """Do what operations have left for the end of the connection."""
        while self._at_end:
            self._at_end.pop()()

    async def answer(self, body: bytearray) -> bytes:
        """Carry out one request; every failure becomes an answer."""
        try:
            await in_a_task()  # any operation may want one
            answer = await self._answer(body)
        except HsmAgentError as error:
            refusal = {"kind": kind_of(error), "message": str(error)}
            return json.dumps({"error": refusal}).encode()
        finally:
            wipe(body)
        return json.dumps({"ok": answer}).encode()

    async def _answer(self, body: bytearray) -> Answer:
        secret, self._secret = self._secret, None
        answer = await (self._carry_out(body) if secret is None else secret.take(body))
        if isinstance(answer, Secret):
            self._secret = answer
            return answer.answer
        return answer

    async def _carry_out(self, body: bytearray) -> Answer | Secret:
        try:
            asked = Asked(json.loads(body), self._peer, self._at_end.append, self._tell)
        except (ValueError, RecursionError):
            raise UsageError("the request is not JSON") from None
        op = asked.text("op")
        if op not in self._operations:
            raise UsageError(
                f"this socket of the daemon knows no operation {printable(op)!r}; "
                "is the daemon an older one?"
            )
        return await self._operations[op](asked)

    def _tell(self, message: Answer) -> None:
        self._send(json.dumps(message).encode())
