"""The Prompter protocol: what the gate wants of anything that can ask a person.

A prompter only shows text and takes an answer. What the text says, whether a PIN is right and
what follows is the gate's business, so every prompter behaves alike.
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

    title: the window's; message: the one bold line; description: who asks and for what, several
    lines; warning: what went wrong last time, or "". `ok` is the affirmative button's label.
    subject: what a "no" to it holds for; request: the one that the text shows in full, if it is for
    one. Neither is shown as it is.
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
        """The process that it is for, or 0."""
        return 0 if self.request is None else self.request.peer.process.pid


class Answer(StrEnum):
    """What became of a typed PIN."""

    DONE = "done"  # logged in: close the dialog
    AGAIN = "again"  # wrong: show `dialog.text()` anew, which now carries the warning
    STOP = "stop"  # cannot go on (blocked, token gone): close the dialog


class PinDialog(Protocol):
    """One unlock of one token, as the prompter sees it."""

    def text(self) -> Text:
        """Return what to show now; asked again before each display, as requests join."""
        ...

    async def submit(self, pin: bytearray) -> Answer:
        """Try the PIN, once. Wipes `pin`. An empty PIN is never sent on: AGAIN."""
        ...


async def ask_until_served(
    dialog: PinDialog, ask: Callable[[Text], Awaitable[bytearray | None]]
) -> Answer:
    """Ask for a PIN until one logs in or no other helps; `ask` returns None for a "no".

    Raises Cancelled when the person declines.
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
        ...

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no; refusal is the default button where the prompter can do that."""
        ...

    async def notice(self, text: Text) -> None:
        """Show `text` (no entry) until cancelled: "use the PIN pad", "touch the token".

        Returns early when the person hides it; the token waits on. Raises Cancelled when the
        person declines, where the prompter has a button for that.
        """
        ...
