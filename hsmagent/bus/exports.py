"""Calls that others make to us: every one gets a plain answer, and never a traceback."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hsmagent.bus import errors
from hsmagent.bus.codec import Flag, Kind, Message
from hsmagent.bus.connection import close_all
from hsmagent.bus.errors import BusError
from hsmagent.tasks import Tasks

_log = logging.getLogger(__name__)

_PEER = "org.freedesktop.DBus.Peer"
_MOST_CALLS = 64  # that peers may have us answer at one time

Handler = Callable[[Message], Awaitable[tuple[str, Sequence[Any]]]]
"""Answers a call with the reply's signature and body, or raises BusError.

The call's `sender` is the caller's unique name, set by the bus.
"""

Undo = Callable[[], None]


class Exports:
    """Our objects on one bus. `send(message)` puts an answer on the wire.

    tasks: the calls that are being answered.
    """

    def __init__(self, send: Callable[[Message], None], next_serial: Callable[[], int]) -> None:
        self._send = send
        self._next_serial = next_serial
        self._handlers: dict[str, Handler] = {}
        self.tasks = Tasks()

    def export(self, path: str, handler: Handler) -> Undo:
        """Have `handler` answer every call to `path`."""
        self._handlers[path] = handler

        def undo() -> None:
            if self._handlers.get(path) is handler:
                del self._handlers[path]

        return undo

    def answer(self, call: Message) -> None:
        """Start answering. Handlers run in the order of their calls, up to their first await."""
        close_all(call.fds)  # we take none
        if len(self.tasks) >= _MOST_CALLS:
            self._refuse(call, errors.LIMITS_EXCEEDED, "too many calls at one time")
            return
        self.tasks.start(self._handle(call))

    async def _handle(self, call: Message) -> None:
        try:
            signature, body = await self._result(call)
            self._reply(call, Kind.METHOD_RETURN, signature, body)
        except BusError as error:
            self._refuse(call, error.name, str(error))
        except Exception:  # noqa: BLE001 - the peer must get an answer
            # The peer learns that it failed; where and why is for our log alone.
            _log.exception("answering %s.%s failed", call.interface, call.member)
            self._refuse(call, errors.FAILED, "an error inside hsmagent; its log says more")

    async def _result(self, call: Message) -> tuple[str, Sequence[Any]]:
        if (call.interface, call.member) == (_PEER, "Ping"):
            return "", ()
        handler = self._handlers.get(call.path)
        if handler is None:
            raise BusError(errors.UNKNOWN_OBJECT, f"there is no object {call.path}")
        return await handler(call)

    def _refuse(self, call: Message, name: str, text: str) -> None:
        self._reply(call, Kind.ERROR, "s", [text], name)

    def _reply(
        self, call: Message, kind: Kind, signature: str, body: Sequence[Any], error: str = ""
    ) -> None:
        if call.flags & Flag.NO_REPLY_EXPECTED:
            return
        self._send(
            Message(
                kind,
                self._next_serial(),
                destination=call.sender,
                error=error,
                reply_serial=call.serial,
                signature=signature,
                body=body,
            )
        )
