"""Calls that we make: each has a deadline, and none outlives its connection."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsmagent.bus import errors
from hsmagent.bus.codec import Kind, Message
from hsmagent.bus.connection import close_all
from hsmagent.bus.errors import BusError

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"


@dataclass(eq=False, slots=True)
class _Pending:
    destination: str
    reply: asyncio.Future[Message]


class Calls:
    """The calls under way on one bus. `send(message)` puts one on the wire."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._serials = itertools.count(1)
        self._pending: dict[int, _Pending] = {}

    def next_serial(self) -> int:
        """Return a number for one more message."""
        return next(self._serials)

    async def call(self, message: Message, returns: str | None, seconds: float) -> list[Any]:
        """Make a call and return the reply's body, which is of the type `returns` if that is given.

        Raises BusError.
        """
        pending = _Pending(message.destination, asyncio.get_running_loop().create_future())
        self._pending[message.serial] = pending
        try:
            self._send(message)
            async with asyncio.timeout(seconds):
                reply = await pending.reply
        except TimeoutError:
            _abandon(pending.reply)
            complaint = f"{message.destination} did not answer {message.member}"
            raise BusError(errors.NO_REPLY, complaint) from None
        except BaseException:
            _abandon(pending.reply)
            raise
        finally:
            del self._pending[message.serial]
        return _result(reply, returns)

    def settle(self, reply: Message) -> None:
        """Take a reply in; one that nobody waits for is dropped.

        A call to a unique name may be answered by that name alone, or by the bus when that name has
        gone.
        """
        pending = self._pending.get(reply.reply_serial)
        if pending is None or pending.reply.done():
            close_all(reply.fds)
            return
        exact = pending.destination == DBUS or pending.destination.startswith(":")
        if exact and reply.sender not in {pending.destination, DBUS}:
            close_all(reply.fds)
            return
        pending.reply.set_result(reply)

    def fail(self, reason: str) -> None:
        """Fail every call under way: the connection is gone."""
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_exception(BusError(errors.DISCONNECTED, reason))


def _abandon(future: asyncio.Future[Message]) -> None:
    """Close the descriptors of a reply that came in the moment its caller went away."""
    if future.done() and not future.cancelled() and future.exception() is None:
        close_all(future.result().fds)


def _result(reply: Message, returns: str | None) -> list[Any]:
    if reply.kind is Kind.ERROR:
        close_all(reply.fds)
        text = reply.body[0] if reply.signature.startswith("s") else reply.error
        raise BusError(reply.error, text)
    if returns is not None and reply.signature != returns:
        close_all(reply.fds)
        raise BusError(errors.INVALID_ARGS, f"a reply of type “{reply.signature}”, not “{returns}”")
    return _with_descriptors(reply)


def _with_descriptors(reply: Message) -> list[Any]:
    """Put descriptors in the place of their indices; close those that nothing refers to."""
    body, unclaimed = list(reply.body), list(reply.fds)
    if set(reply.signature) <= set("ybnqiuxtdsogvh"):  # one character a value
        for place, kind in enumerate(reply.signature):
            if kind == "h" and body[place] < len(reply.fds):
                body[place] = reply.fds[body[place]]
                unclaimed = [fd for fd in unclaimed if fd != body[place]]
    close_all(unclaimed)
    return body
