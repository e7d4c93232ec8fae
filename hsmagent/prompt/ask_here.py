"""A terminal that a person has opened to be asked in, with `hsmagent ask-here`.

It comes last: only what no window can ask is asked there. Never what its own terminal's programs
want, since whoever owns a terminal could answer there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.frame import wipe
from hsmagent.model import Request
from hsmagent.prompt.base import Answer, PinDialog, Text, ask_until_served

# What is asked.
PIN, CONFIRM, NOTICE = "pin", "confirm", "notice"
# How a question ended: answered, in vain, with a "no", taken back, unanswered.
DONE, STOPPED, NO, GONE, LATE = "done", "stopped", "no", "gone", "late"


Serves = Callable[[Request], bool]
Send = Callable[[dict[str, Any]], None]
Asked = Callable[[Request, str], None]


class Place:
    """One terminal where somebody waits to be asked.

    where: its name. serves: whether this request may be asked about there, now. send: says
    `{"ask": …}` or `{"over": …}` to the program at that terminal. asked: told of each question.
    """

    def __init__(self, where: str, serves: Serves, send: Send, asked: Asked) -> None:
        self.where = where
        self._serves = serves
        self._send = send
        self._asked = asked
        self._number = 0
        self._shows = False
        self._answer: asyncio.Future[bytearray | None] | None = None

    def show(self, kind: str, text: Text) -> None:
        """Put the next question, or a notice. Raises Unavailable when it is not for this place."""
        if text.request is None or not self._serves(text.request):
            raise Unavailable(f"the terminal {self.where} is not to be asked in for that")
        if not self._shows and kind != NOTICE:
            self._asked(text.request, self.where)
        self._number += 1
        self._shows = True
        words = ("title", "message", "description", "warning", "ok")
        shown = {name: getattr(text, name) for name in words}
        self._send({"ask": {"number": self._number, "kind": kind, **shown}})

    async def ask(self, kind: str, text: Text, seconds: float | None) -> bytearray | None:
        """Return what was answered (a PIN, for the caller to wipe), or None for a "no".

        Raises TimedOut, and Unavailable when nobody is there any more.
        """
        self.show(kind, text)
        answer: asyncio.Future[bytearray | None] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            _forget(answer)
            raise TimedOut("nobody answered the question in time") from None
        except asyncio.CancelledError:
            _forget(answer)
            raise
        finally:
            self._answer = None

    def answered(self, number: int, pin: bytearray | None) -> None:
        """Take an answer to the question of that number, and the PIN with it, if it is one.

        An answer to a former question is none.
        """
        if number == self._number and self._answer is not None and not self._answer.done():
            self._answer.set_result(pin)
        elif pin is not None:
            wipe(pin)

    def end(self, how: str) -> None:
        """Say how the question ended, if one was shown."""
        if self._shows:
            self._send({"over": how})
        self._shows = False

    def close(self) -> None:
        """Notice that nobody is there any more."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(f"`hsmagent ask-here` at {self.where} ended"))


def _forget(answer: "asyncio.Future[bytearray | None]") -> None:
    """Wipe an answer that came when nobody waited for it any more."""
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        wipe(answer.result() or bytearray())


class AskHere:
    """Asks in the terminals that are opened for that, the newest first.

    timeout: seconds for an answer, as of now. asked: told which request was asked about where.
    """

    name = "ask-here"

    def __init__(self, timeout: Callable[[], float], asked: Asked) -> None:
        self._timeout = timeout
        self._asked = asked
        self._places: list[Place] = []
        self._arrived = asyncio.Event()

    def open(self, where: str, serves: Serves, send: Send) -> Place:
        """Ask there from now on, until `close`."""
        place = Place(where, serves, send, self._asked)
        self._places.append(place)
        self._arrived.set()
        return place

    def close(self, place: Place) -> None:
        """Ask there no more; what is asked there just now is asked elsewhere."""
        self._places.remove(place)
        place.close()

    def where(self) -> list[str]:
        """Return the terminals that are open."""
        return [place.where for place in self._places]

    async def arrival(self) -> None:
        """Return when one more terminal is opened."""
        self._arrived.clear()
        await self._arrived.wait()

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until the PIN serves."""

        async def ask(place: Place) -> str:
            answer = await ask_until_served(
                dialog, lambda text: place.ask(PIN, text, self._timeout())
            )
            return DONE if answer is Answer.DONE else STOPPED

        await self._first_able(ask)

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no."""

        async def ask(place: Place) -> str:
            answer = await place.ask(CONFIRM, text, self._timeout())
            return NO if answer is None else DONE

        return await self._first_able(ask) == DONE

    async def notice(self, text: Text) -> None:
        """Show `text` until cancelled, or declined."""

        async def show(place: Place) -> str:
            if await place.ask(NOTICE, text, None) is None:
                raise Cancelled("the notice was cancelled")
            return DONE

        await self._first_able(show)

    async def _first_able(self, ask: Callable[[Place], Awaitable[str]]) -> str:
        reason = "nobody has run `hsmagent ask-here`"
        for place in reversed(tuple(self._places)):
            how = GONE
            try:
                how = await ask(place)
            except Unavailable as error:
                reason = str(error)
            except Cancelled:
                how = NO
                raise
            except TimedOut:
                how = LATE
                raise
            else:
                return how
            finally:
                place.end(how)
        raise Unavailable(reason)
