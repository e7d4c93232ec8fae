"""What management asks a person, and says; the terminal and `--stdin` are behind it."""

from collections.abc import Callable
from typing import Protocol

from hsmagent.errors import Cancelled


class Person(Protocol):
    """Who typed the command."""

    def secret(self, question: str, *, again: str = "") -> bytearray:
        """Ask for a PIN or password without showing it; `again` asks a second time, and compares.

        The caller wipes it. Raises HsmAgentError when there is nowhere to ask.
        """
        ...

    def agrees(self, warning: str, word: str) -> bool:
        """Show what will be lost and ask for `word` to be typed; a `--yes` answers for itself."""
        ...

    def asks(self, question: str) -> str:
        """Ask for a line that may be seen. Raises HsmAgentError where only `--stdin` is there."""
        ...

    def say(self, text: str) -> None:
        """Tell what happens; not what the command is asked for, which is its output."""
        ...

    def shows_once(self, text: str) -> None:
        """Show a secret that is to be noted; where somebody looks on, until it was."""
        ...

    def progress(self, what: str) -> Callable[[float], None]:
        """Return what is told, from 0 to 1, how far `what` is."""
        ...


def confirm(person: Person, warning: str, word: str) -> None:
    """Return if the person wants it. Raises Cancelled."""
    if not person.agrees(warning, word):
        raise Cancelled("nothing was changed")
