"""GnuPG's pinentry: a program per dialog, spoken to in Assuan on its standard streams.

It is never told that it may use an external password cache, which would put the PIN into the
desktop's keyring.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hsmagent import assuan
from hsmagent.errors import Cancelled, ProtocolError, TimedOut, Unavailable
from hsmagent.frame import wipe
from hsmagent.model import printable
from hsmagent.prompt.base import Answer, PinDialog, Text
from hsmagent.prompt.child import Child, running
from hsmagent.prompt.environment import Environment, has_display, is_kde

_GTK = ("pinentry-gnome3", "pinentry-gtk-2", "pinentry-gtk")
_QT = ("pinentry-qt", "pinentry-qt6", "pinentry-qt5")
_ANY_WINDOW = ("pinentry-x11", "pinentry-fltk", "pinentry")
_TERMINAL = ("pinentry-curses", "pinentry-tty", "pinentry")

# libgpg-error's codes
_TIMEOUT = 62
_NO = {99, 114, 198}  # cancelled, not confirmed, fully cancelled

_START_TIMEOUT = 10.0  # seconds for the greeting and for each setting
_GRACE = 5.0  # seconds that pinentry's own time-out gets on top of ours


class Pinentry:
    """Asks with the pinentry that fits the desktop.

    environment: of the person's session. answer_timeout: seconds.
    """

    name = "pinentry"

    def __init__(self, environment: Environment, answer_timeout: float) -> None:
        self._environment = environment
        self._timeout = answer_timeout

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until the PIN serves; the window closes while each PIN is tried."""
        async with self._session() as session:
            while True:
                pin = await session.get_pin(dialog.text())
                if await dialog.submit(pin) is not Answer.AGAIN:
                    return

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no."""
        async with self._session() as session:
            return await session.agree("CONFIRM", text, self._timeout)

    async def notice(self, text: Text) -> None:
        """Show `text` until it is closed or we are cancelled."""
        async with self._session() as session:
            await session.agree("MESSAGE", text, None)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["_Session"]:
        environment = dict(await self._environment())
        async with running([find_program(environment)], environment) as child:
            session = _Session(child, self._timeout)
            try:
                await session.greet(environment)
                yield session
            except ProtocolError as error:
                raise Unavailable(str(error)) from error
            finally:
                session.wipe()


def find_program(environment: Mapping[str, str]) -> str:
    """Return the pinentry that fits the desktop. Raises Unavailable.

    Without a display there is only a terminal to ask at, and only one that the person has named
    for that in GPG_TTY.
    """
    if has_display(environment):
        first, second = (_QT, _GTK) if is_kde(environment) else (_GTK, _QT)
        names: tuple[str, ...] = first + second + _ANY_WINDOW
    elif environment.get("GPG_TTY"):
        names = _TERMINAL
    else:
        raise Unavailable("pinentry has no display to show a window on")
    for name in names:
        program = shutil.which(name, path=environment.get("PATH"))
        if program:
            return program
    raise Unavailable("there is no pinentry program")


class _Session:
    """One running pinentry. `timeout`: seconds for the person."""

    def __init__(self, child: Child, timeout: float) -> None:
        self._child = child
        self._timeout = timeout
        self._lines = assuan.LineReader()
        self._pin = bytearray()

    async def greet(self, environment: Mapping[str, str]) -> None:
        """Read the greeting, and say where and how to ask."""
        async with _deadline(_START_TIMEOUT):
            if not isinstance(await self._reply(), assuan.Ok):
                raise ProtocolError("pinentry does not greet")
        locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "C.UTF-8")
        terminal = environment.get("GPG_TTY", "")
        for option, value in (
            ("no-grab", ""),
            ("lc-ctype", locale),
            ("ttyname", terminal),
            ("ttytype", environment.get("TERM", "dumb") if terminal else ""),
        ):
            if value or option == "no-grab":
                await self._set("OPTION", f"{option}={value}" if value else option)
        await self._set("SETTIMEOUT", str(int(self._timeout)))

    async def get_pin(self, text: Text) -> bytearray:
        """Return what was typed, for the caller to wipe. Raises Cancelled or TimedOut."""
        await self._show(text)
        await self._set("SETPROMPT", "PIN:")
        pin, end = await self._ask("GETPIN", self._timeout)
        if isinstance(end, assuan.Err):
            raise _failure(end)
        return pin

    async def agree(self, command: str, text: Text, seconds: float | None) -> bool:
        """Show a question (CONFIRM) or a message (MESSAGE). Raises TimedOut."""
        await self._show(text)
        _, end = await self._ask(command, seconds)
        if isinstance(end, assuan.Err) and end.code not in _NO:
            raise _failure(end)
        return isinstance(end, assuan.Ok)

    def wipe(self) -> None:
        """Forget what was read; a PIN too, whose answer did not end well."""
        self._lines.wipe()
        wipe(self._pin)

    async def _show(self, text: Text) -> None:
        await self._set("SETTITLE", text.title)
        await self._set("SETDESC", f"{text.message}\n\n{text.description}".strip())
        await self._set("SETOK", text.ok)
        if text.warning:  # it counts for the next dialog only
            await self._set("SETERROR", text.warning)

    async def _set(self, command: str, argument: str) -> None:
        """Send a setting; a pinentry that does not know it shows less."""
        async with _deadline(_START_TIMEOUT):
            await self._child.write(assuan.command(command, argument))
            while not isinstance(await self._reply(), assuan.Ok | assuan.Err):
                pass

    async def _ask(
        self, command: str, seconds: float | None
    ) -> tuple[bytearray, assuan.Ok | assuan.Err]:
        """Send a command that waits for the person; return the data and the end of its answer."""
        pin = bytearray()
        try:
            async with asyncio.timeout(None if seconds is None else seconds + _GRACE):
                await self._child.write(assuan.command(command))
                while True:
                    match await self._reply():
                        case assuan.Data(value):
                            pin = self._pin = value
                        case assuan.Ok() | assuan.Err() as end:
                            return pin, end
        except TimeoutError:
            raise TimedOut("nobody answered the prompt in time") from None

    async def _reply(self) -> assuan.Reply:
        while (line := self._lines.next_line()) is None:
            count = await self._child.read_into(self._lines.room)
            if not count:
                raise ProtocolError("pinentry ended without an answer")
            self._lines.arrived(count)
        return assuan.parse(line)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProtocolError("pinentry does not answer") from None


def _failure(end: assuan.Err) -> Exception:
    if end.code in _NO:
        return Cancelled("the PIN prompt was closed")
    if end.code == _TIMEOUT:
        return TimedOut("nobody answered the prompt in time")
    return Unavailable(f"pinentry cannot ask: {printable(end.text)}")
