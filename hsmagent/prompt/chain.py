"""The chain of prompters: the first that can ask, asks; one dialog at a time; and some peace.

Only Unavailable makes it try the next one. A "no" and a time-out are answers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from hsmagent.errors import Cancelled, Refused, Unavailable
from hsmagent.limit import Budgets, RateLimit
from hsmagent.model import Clock
from hsmagent.prompt.base import PinDialog, Prompter, Text
from hsmagent.prompt.environment import Environment, is_kde

_log = logging.getLogger(__name__)

PAUSE = 10.0
"""Seconds after a "no" in which the same program's same question is not shown again."""

DIALOGS, DIALOGS_WINDOW = 20, 60.0
"""More dialogs than these in so many seconds are somebody's loop, and nobody's wish."""

DIALOGS_EACH = 8
"""And so many of one process, which must not use up what others may ask."""

_MOST_DECLINED = 100
_DEFAULT = ("system", "pinentry", "askpass")

T = TypeVar("T")


class Chain:
    """A Prompter made of others.

    prompters: in the order of the configuration. environment: of the person's session. last: asks
    whatever none of them can.
    """

    name = "chain"

    def __init__(
        self,
        prompters: Sequence[Prompter],
        environment: Environment,
        clock: Clock,
        last: Prompter | None = None,
    ) -> None:
        self._last = () if last is None else (last,)
        self._prompters = tuple(prompters)
        self._environment = environment
        self._clock = clock
        self._limit = RateLimit(DIALOGS, DIALOGS_WINDOW, clock)
        self._budgets = Budgets(DIALOGS_EACH, DIALOGS_WINDOW, clock)
        self._turn = asyncio.Lock()  # of dialogs; nothing else waits for it
        self._declined: dict[tuple[str, str], float] = {}

    def configure(self, prompters: Sequence[Prompter]) -> None:
        """Ask with these from now on; what was declined, and how often, is not forgotten."""
        self._prompters = tuple(prompters)

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask with the first prompter that can. Raises Refused, or Unavailable if none can."""
        async with self._dialog(dialog.text):
            await self._first_able(lambda prompter: prompter.ask_pin(dialog))

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no with the first prompter that can."""
        try:
            async with self._dialog(lambda: text) as subject:
                agreed = await self._first_able(lambda prompter: prompter.confirm(text))
                if not agreed:
                    self._note_declined(subject)
                return agreed
        except Cancelled:
            return False

    async def notice(self, text: Text) -> None:
        """Show `text` with the first prompter that can. Raises Cancelled when it is declined."""
        async with self._turn:
            subject = _subject(text)
            self._check_declined(subject)
            try:
                await self._first_able(lambda prompter: prompter.notice(text))
            except Cancelled:
                self._note_declined(subject)
                raise

    @asynccontextmanager
    async def _dialog(self, text: Callable[[], Text]) -> AsyncIterator[tuple[str, str]]:
        """Wait for the turn; refuse what was declined just now, and what comes too often."""
        async with self._turn:
            shown = text()
            subject = _subject(shown)
            self._check_declined(subject)
            self._count(shown.asker)
            try:
                yield subject
            except Cancelled:
                self._note_declined(subject)
                raise
            except Unavailable:
                self._uncount(shown.asker)
                raise

    def _count(self, asker: int) -> None:
        """Count a dialog of this process (0: it is not known). Raises Refused for one too many."""
        if self._limit.is_full() or (asker and not self._budgets.admit(asker)):
            raise Refused("there were too many dialogs in the last minute")
        self._limit.admit()

    def _uncount(self, asker: int) -> None:
        """Take `_count` back, for what no prompter could show; it is still our turn."""
        self._limit.give_back()
        if asker:
            self._budgets.give_back(asker)

    def _check_declined(self, subject: tuple[str, str]) -> None:
        if self._clock() < self._declined.get(subject, float("-inf")):
            raise Cancelled("the same question was declined a moment ago")

    def _note_declined(self, subject: tuple[str, str]) -> None:
        self._declined[subject] = self._clock() + PAUSE
        if len(self._declined) > _MOST_DECLINED:
            del self._declined[next(iter(self._declined))]

    async def _first_able(self, ask: Callable[[Prompter], Awaitable[T]]) -> T:
        reasons = []
        ordered = in_order(self._prompters, await self._environment())
        for prompter in (*ordered, *self._last):
            try:
                return await ask(prompter)
            except Unavailable as error:
                _log.warning("%s: %s", prompter.name, error)
                reasons.append(str(error))
        raise Unavailable("; ".join(reasons) or "no prompter is configured")


def _subject(text: Text) -> tuple[str, str]:
    """Return what makes two dialogs the same: the question, and who asks for what.

    Of a text that does not say it, the description's first line does (words.describe).
    """
    return text.message, text.subject or text.description.partition("\n")[0]


def in_order(prompters: Sequence[Prompter], environment: Mapping[str, str]) -> tuple[Prompter, ...]:
    """Return the prompters in the configured order; the default one puts pinentry first on KDE.

    Its own dialog there is pinentry-qt; the system prompter's would be GNOME's.
    """
    if is_kde(environment) and tuple(prompter.name for prompter in prompters) == _DEFAULT:
        return tuple(sorted(prompters, key=lambda prompter: prompter.name != "pinentry"))
    return tuple(prompters)
