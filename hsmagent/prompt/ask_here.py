"""A terminal that a person has opened to be asked in, with `hsmagent ask-here`.

It comes last: a question goes there only if no window can be shown. Questions about programs in
that same terminal never do, since whoever owns a terminal can answer in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hsmagent.errors import Cancelled, TimedOut, Unavailable
from hsmagent.frame import wipe
from hsmagent.model import Request
from hsmagent.prompt.base import Answer, PinDialog, Text, ask_until_served

# The kinds of question.
PIN, CONFIRM, NOTICE = "pin", "confirm", "notice"
# How a question ended: answered, PIN of no use, answered with "no", taken back, not answered.
DONE, STOPPED, NO, GONE, LATE = "done", "stopped", "no", "gone", "late"


Serves = Callable[[Request], bool]
Send = Callable[[dict[str, Any]], None]
Asked = Callable[[Request, str], None]


class Place:
    """One terminal where somebody waits to be asked.

    where: its name. serves: whether this request may be asked about there, now. send: sends
    `{"ask": …}` or `{"over": …}` to the program at that terminal. asked: told of each question, and
    where it is put.
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
        """Show the next question, or a notice. Raises Unavailable if it must not be asked here."""
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
        """Return the answer (a PIN, which the caller wipes; else empty), or None for a "no".

        Raises TimedOut, and Unavailable when the terminal's program has ended.
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
        """Take the answer to the question of that number; pin: None for a "no".

        An answer to an earlier question is dropped, and its PIN wiped.
        """
        if number == self._number and self._answer is not None and not self._answer.done():
            self._answer.set_result(pin)
        elif pin is not None:
            wipe(pin)

    def end(self, how: str) -> None:
        """Tell the terminal how the question ended, if one was shown."""
        if self._shows:
            self._send({"over": how})
        self._shows = False

    def close(self) -> None:
        """Take in that the terminal's program has ended."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(f"`hsmagent ask-here` at {self.where} ended"))


def _forget(answer: "asyncio.Future[bytearray | None]") -> None:
    """Wipe an answer that came after the wait for it had ended."""
    if answer.done() and not answer.cancelled() and answer.exception() is None:
        wipe(answer.result() or bytearray())


class AskHere:
    """Asks in the terminals that are opened for that, the newest first.

    timeout: returns the seconds for an answer, as of now. asked: see Place.
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
        """Ask there no more; a question that is open there is put at another terminal."""
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
