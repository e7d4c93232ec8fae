"""The Prompter protocol: what the gate needs of anything that can ask a person.

A prompter only shows text and takes an answer. The gate decides what the text says, whether a PIN
is right and what follows, so that all prompters behave alike.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hsmagent.errors import Cancelled
from hsmagent.model import Request


@dataclass(frozen=True, slots=True)
class Text:
    """The words of one dialog, already printable (model.printable); plain text, no markup.

    title: the window's. message: the one bold line. description: who asks and for what, in several
    lines. warning: what went wrong last time, or "". ok: the affirmative button's label. Two fields
    are not shown: subject, what a "no" holds for, and request, the one that the text is about.
    """

    title: str
    message: str
    description: str
    warning: str = ""
    ok: str = "Continue"
    subject: str = ""
    request: Request | None = None

    @property
    def asker(self) -> int:
        """The id of the process whose request the text shows, or 0."""
        return 0 if self.request is None else self.request.peer.process.pid


class Answer(StrEnum):
    """What happened with a typed PIN, and so what the prompter does next."""

    DONE = "done"  # logged in: close the dialog
    AGAIN = "again"  # wrong: show `dialog.text()` anew, which now carries the warning
    STOP = "stop"  # cannot go on (blocked, token gone): close the dialog


class PinDialog(Protocol):
    """One unlock of one token, as the prompter sees it."""

    def text(self) -> Text:
        """Return what to show now. Called before each display, since requests may have joined."""

    async def submit(self, pin: bytearray) -> Answer:
        """Try the PIN, once, and wipe it. An empty PIN is not tried: the result is AGAIN."""


async def ask_until_served(
    dialog: PinDialog, ask: Callable[[Text], Awaitable[bytearray | None]]
) -> Answer:
    """Ask for a PIN until `submit` returns DONE or STOP, and return that.

    ask: shows a text and returns the PIN, or None for a "no", which raises Cancelled.
    """
    while (pin := await ask(dialog.text())) is not None:
        answer = await dialog.submit(pin)
        if answer is not Answer.AGAIN:
            return answer
    raise Cancelled("the PIN prompt was closed")


class Prompter(Protocol):
    """Something that can ask a person. One dialog at a time; no lock is held meanwhile.

    All three raise Unavailable when this prompter cannot be used at all (the next one may serve)
    and TimedOut when nobody answered; and all close their dialog when their task is cancelled.
    """

    name: str

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until `submit` says DONE or STOP. Raises Cancelled when the person declines."""

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no; refusal is the default button where the prompter can do that."""

    async def notice(self, text: Text) -> None:
        """Show `text`, without an entry, until cancelled: "use the PIN pad", "touch the token".

        Returns early when the person hides it, and the token still waits. Raises Cancelled when the
        person declines, if the prompter has a button for that.
        """
