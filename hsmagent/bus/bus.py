"""The bus as the daemon uses it: it joins, does what its parts say, and rejoins."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hsmagent.bus import errors
from hsmagent.bus.address import may_be_there, socket_paths
from hsmagent.bus.calls import DBUS, DBUS_PATH, PROPERTIES, Calls
from hsmagent.bus.codec import Kind, Message, encode
from hsmagent.bus.connection import Connection, close_all, open_connection
from hsmagent.bus.errors import BusError
from hsmagent.bus.exports import Exports, Undo
from hsmagent.bus.signals import Signals, tell
from hsmagent.errors import ProtocolError
from hsmagent.model import Listener
from hsmagent.tasks import Tasks

_log = logging.getLogger(__name__)

CALL_TIMEOUT = 5.0
_CONNECT_TIMEOUT = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 30.0

_DO_NOT_QUEUE = 4
_PRIMARY_OWNER, _ALREADY_OWNER = 1, 4


async def quietly(errand: Awaitable[Any]) -> None:
    """Await `errand`; when the bus fails it, only the log is told."""
    try:
        await errand
    except BusError as error:
        _log.debug("%s", error)


Appeared = Callable[[Sequence[Path]], Awaitable[bool]]
"""Returns True once one of these files is there; False, at once, where nothing can tell."""


async def untold(_: Sequence[Path]) -> bool:
    """Tell of no file."""
    return False


class Bus:
    """One bus, whenever it is there.

    address: returns where the bus listens, and is asked before each attempt; "" for no bus.
    name: what the log calls it: "session" or "system". appeared: waits for a socket that is not
    there; without it we try again now and then. For `export`, `watch_owner` and `subscribe` see
    Exports and Signals.
    """

    def __init__(
        self, address: Callable[[], str], name: str = "session", appeared: Appeared = untold
    ) -> None:
        self._address = address
        self._name = name
        self._appeared = appeared
        self._connection: Connection | None = None
        self._lost = asyncio.Event()
        self._first_join: asyncio.Future[None] | None = None  # while it is under way
        self._calls = Calls(self._send)
        self._exports = Exports(self._send, self._calls.next_serial)
        self._signals = Signals(self.call_bus, lambda: self.connected, self._spawn)
        self.export = self._exports.export
        self.watch_owner = self._signals.watch_owner
        self.subscribe = self._signals.subscribe
        self._names: list[str] = []
        self._listeners: list[Listener] = []
        self._errands = Tasks()
        self.unique_name = ""

    # -- coming and going --------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the bus has let us in and has not gone since."""
        return bool(self.unique_name)

    def listen(self, told: Listener) -> Undo:
        """Have `told` called whenever `connected` has changed."""
        self._listeners.append(told)
        return partial(_forget, self._listeners, told)

    async def run(self) -> None:
        """Connect, and again whenever the connection was lost, until cancelled."""
        delay = _FIRST_DELAY
        self._first_join = first = asyncio.get_running_loop().create_future()
        try:
            while True:
                joined = await self._join()
                if self._first_join is not None:
                    self._first_join = None
                    first.set_result(None)
                if joined:
                    delay = _FIRST_DELAY
                    await self._lost.wait()
                if await self._absence_ended():
                    delay = _FIRST_DELAY
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY)
        finally:
            self._first_join = None
            first.cancel()
            self._leave("we are leaving")
            await self._exports.tasks.ended()
            await self._errands.ended()

    async def _absence_ended(self) -> bool:
        """Wait for a socket if there is none. Return whether one has come."""
        paths = list(socket_paths(self._address()))
        if not paths or any(map(may_be_there, paths)):
            return False  # whoever listens there did not let us in, and may do so later
        return await self._appeared([Path(path) for path in paths])

    async def _join(self) -> bool:
        try:
            await self._connect()
            hello = Message(
                Kind.METHOD_CALL,
                self._calls.next_serial(),
                destination=DBUS,
                path=DBUS_PATH,
                interface=DBUS,
                member="Hello",
            )
            self.unique_name = (await self._calls.call(hello, "s", CALL_TIMEOUT))[0]
            await self._signals.renew()
            for name in self._names:
                await self._own(name)
        except (OSError, EOFError, ProtocolError, BusError) as error:
            _log.debug("no %s bus: %s", self._name, error)
            self._leave(str(error))
            return False
        _log.info("joined the %s bus as %s", self._name, self.unique_name)
        self._tell_listeners()
        return True

    async def _connect(self) -> None:
        self._lost.clear()
        problem: Exception = FileNotFoundError("nothing says where it is")
        for path in socket_paths(self._address()):
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    self._connection = await open_connection(path, self._receive, self._leave)
            except (OSError, EOFError, ProtocolError) as error:
                problem = error
            except ValueError:  # a NUL within the path
                problem = FileNotFoundError("its address is wrong")
            else:
                return
        raise problem

    def _leave(self, reason: str) -> None:
        """Forget the connection, fail what waits for it, stop answering."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        self.unique_name = ""
        self._calls.fail(f"the {self._name} bus is gone: {reason}")
        self._exports.tasks.cancel()  # nobody hears the answers any more
        self._signals.lost()
        self._lost.set()
        _log.info("left the %s bus: %s", self._name, reason)
        self._tell_listeners()

    def _tell_listeners(self) -> None:
        for told in list(self._listeners):
            tell(told)

    # -- messages ----------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        if message.kind is Kind.METHOD_CALL:
            self._exports.answer(message)
        elif message.kind is Kind.SIGNAL:
            close_all(message.fds)
            self._signals.dispatch(message)
        else:
            self._calls.settle(message)

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(encode(message))

    def _spawn(self, errand: Awaitable[Any]) -> None:
        """Begin an errand whose outcome nobody waits for, such as RemoveMatch."""
        self._errands.start(quietly(errand))

    # -- what the daemon does on it ----------------------------------------------------------

    async def call(  # noqa: PLR0917 - a call's own fields
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        returns: str | None = None,
        timeout: float = CALL_TIMEOUT,  # noqa: ASYNC109 - every call has one
    ) -> list[Any]:
        """Call a method and return the reply's body. Raises BusError.

        Whoever calls while the bus is joined for the first time waits for that: a daemon may have
        been started by a request. returns: the reply's signature; another one is an error. timeout:
        seconds.
        """
        if self._first_join is not None and not self.connected:
            await asyncio.wait([self._first_join], timeout=timeout)
        if not self.connected:
            raise BusError(errors.DISCONNECTED, f"there is no {self._name} bus")
        message = Message(
            Kind.METHOD_CALL,
            self._calls.next_serial(),
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        return await self._calls.call(message, returns, timeout)

    async def call_bus(
        self, member: str, signature: str, body: Sequence[Any], returns: str
    ) -> list[Any]:
        """Call a method of the bus itself, such as GetNameOwner. See `call`."""
        return await self.call(DBUS, DBUS_PATH, DBUS, member, signature, body, returns=returns)

    async def get(
        self, destination: str, path: str, interface: str, name: str, seconds: float = CALL_TIMEOUT
    ) -> Any:
        """Return a property of an object of somebody else. See `call`."""
        get = (destination, path, PROPERTIES, "Get", "ss", [interface, name])
        return (await self.call(*get, returns="v", timeout=seconds))[0]

    def emit(
        self, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> None:
        """Broadcast a signal. Without a bus nobody hears it."""
        if not self.connected:
            return
        message = Message(
            Kind.SIGNAL,
            self._calls.next_serial(),
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        self._send(message)

    async def request_name(self, name: str) -> bool:
        """Take a well-known name, now and at each rejoin. Return whether it is ours now."""
        if name not in self._names:
            self._names.append(name)
        return self.connected and await self._own(name)

    async def _own(self, name: str) -> bool:
        reply = await self.call_bus("RequestName", "su", [name, _DO_NOT_QUEUE], "u")
        ours = reply[0] in {_PRIMARY_OWNER, _ALREADY_OWNER}
        if not ours:
            _log.warning("another program owns %s on the %s bus", name, self._name)
        return ours


def _forget(listeners: list[Listener], told: Listener) -> None:
    if told in listeners:
        listeners.remove(told)
