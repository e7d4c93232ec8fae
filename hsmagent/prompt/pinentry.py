"""GnuPG's pinentry: a process per dialog, spoken to in Assuan on its standard streams.

It is never allowed an external password cache, which would put the PIN into the desktop's keyring.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from hsmagent import assuan
from hsmagent.errors import Cancelled, ProtocolError, TimedOut, Unavailable
from hsmagent.frame import wipe
from hsmagent.model import printable
from hsmagent.prompt.base import PinDialog, Text, ask_until_served
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

T = TypeVar("T")


class Pinentry:
    """Asks with the pinentry that fits the desktop, or with the next one where that one fails.

    environment: of the login session. answer_timeout: seconds. named: the only program to ask with.
    """

    name = "pinentry"

    def __init__(self, environment: Environment, answer_timeout: float, named: str = "") -> None:
        self._environment = environment
        self._timeout = answer_timeout
        self._named = named

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until the PIN serves; the window closes while each PIN is tried."""
        await self._first_able(lambda session: ask_until_served(dialog, session.get_pin))

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no."""
        return await self._first_able(lambda session: session.agree("CONFIRM", text, self._timeout))

    async def notice(self, text: Text) -> None:
        """Show `text` until it is hidden or we are cancelled; some have a second button."""
        if not await self._first_able(lambda session: session.agree("MESSAGE", text, None)):
            raise Cancelled("the notice was cancelled")

    async def _first_able(self, ask: Callable[["_Session"], Awaitable[T]]) -> T:
        environment = dict(await self._environment())
        reasons = []
        for program in find_programs(environment, self._named):
            try:
                async with self._session(program, environment) as session:
                    return await ask(session)
            except Unavailable as error:
                reasons.append(f"{program}: {error}")
        raise Unavailable("; ".join(reasons))

    @asynccontextmanager
    async def _session(
        self, program: str, environment: Mapping[str, str]
    ) -> AsyncIterator["_Session"]:
        async with running([program], environment) as child:
            session = _Session(child, self._timeout)
            try:
                await session.greet(environment)
                yield session
            except ProtocolError as error:
                raise Unavailable(str(error)) from error
            finally:
                session.wipe()


def find_programs(environment: Mapping[str, str], named: str = "") -> list[str]:
    """Return the pinentries that can ask, the one that fits the desktop first. Raises Unavailable.

    Without a display there is only a terminal to ask at, and only one that the person has named
    for that in GPG_TTY. named: a program that the person wants, and no other.
    """
    names: tuple[str, ...] = (named,) if named else ()
    if not named and has_display(environment):
        first, second = (_QT, _GTK) if is_kde(environment) else (_GTK, _QT)
        names = first + second + _ANY_WINDOW
    if not named and environment.get("GPG_TTY"):
        names += _TERMINAL
    if not names:
        raise Unavailable("pinentry has no display to show a window on")
    from shutil import which  # with every archive's compression

    found: dict[str, str] = {}  # by the file itself: one program may go by several names
    for name in names:
        if program := which(name, path=environment.get("PATH")):
            found.setdefault(os.path.realpath(program), program)
    if not found:
        raise Unavailable(f"there is no {named or 'pinentry program'}")
    return list(found.values())


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

    async def get_pin(self, text: Text) -> bytearray | None:
        """Return what was typed, for the caller to wipe; None for a "no". Raises TimedOut."""
        await self._show(text)
        await self._set("SETPROMPT", "PIN:")
        pin, end = await self._ask("GETPIN", self._timeout)
        return pin if isinstance(end, assuan.Ok) else None

    async def agree(self, command: str, text: Text, seconds: float | None) -> bool:
        """Show a question (CONFIRM) or a message (MESSAGE). Raises TimedOut."""
        await self._show(text)
        _, end = await self._ask(command, seconds)
        return isinstance(end, assuan.Ok)

    def wipe(self) -> None:
        """Wipe what was read, and the PIN of an answer that did not end well."""
        self._lines.wipe()
        wipe(self._pin)

    async def _show(self, text: Text) -> None:
        await self._set("SETTITLE", text.title)
        await self._set("SETDESC", f"{text.message}\n\n{text.description}".strip())
        await self._set("SETOK", text.ok)
        if text.warning:  # pinentry shows it in the next dialog only
            await self._set("SETERROR", text.warning)

    async def _set(self, command: str, argument: str) -> None:
        """Send a setting. One that this pinentry does not know is left out."""
        async with _deadline(_START_TIMEOUT):
            await self._child.write(assuan.command(command, argument))
            while not isinstance(await self._reply(), assuan.Ok | assuan.Err):
                pass

    async def _ask(
        self, command: str, seconds: float | None
    ) -> tuple[bytearray, assuan.Ok | assuan.Err]:
        """Send a command that waits for the person; return the data and the end of its answer.

        An Err is the person's "no". Raises TimedOut, and Unavailable where pinentry cannot ask.
        """
        pin = bytearray()
        try:
            async with asyncio.timeout(None if seconds is None else seconds + _GRACE):
                self._child.asked()
                await self._child.write(assuan.command(command))
                while True:
                    match await self._reply():
                        case assuan.Data(value):
                            pin = self._pin = value
                        case assuan.Ok() as end:
                            return pin, end
                        case assuan.Err() as end:
                            return pin, self._no(end)
        except TimeoutError:
            raise TimedOut("nobody answered the prompt in time") from None

    def _no(self, end: assuan.Err) -> assuan.Err:
        """Return the error if it is the person's "no". Raises TimedOut or Unavailable otherwise."""
        if end.code == _TIMEOUT:
            raise TimedOut("nobody answered the prompt in time")
        if end.code not in _NO:
            raise Unavailable(f"pinentry cannot ask: {printable(end.text)}")
        if self._child.fell_over:
            raise Unavailable("pinentry gave up at once, with a complaint; is there a display?")
        return end

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
