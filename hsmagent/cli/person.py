"""The person behind a management command: this terminal, or `--stdin` for the secrets."""

import os
import sys
from contextlib import AbstractContextManager

from hsmagent.cli import progress, terminal
from hsmagent.cli.output import write
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.frame import wipe

_SPACE, _DELETE = 0x20, 0x7F  # below the one, and the other, are control characters
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"  # clears the screen, and what was scrolled off it


class Terminal:
    """Implements `manage.person.Person`.

    from_stdin: secrets come from standard input, one a line, in the order in which they are asked
    for; a new secret is not asked for twice. yes: the person is told what will be lost, but not
    asked.
    """

    def __init__(self, *, from_stdin: bool, yes: bool) -> None:
        self._from_stdin = from_stdin
        self._yes = yes

    def secret(self, question: str, *, again: str = "") -> bytearray:
        """Ask for a secret; the caller wipes it."""
        # Where standard input is a terminal, it is not read: it would show what is typed.
        if self._from_stdin and not os.isatty(0):
            secret = terminal.read_line(0)
            if again:
                _refuse_controls(secret, question)
        else:
            secret = terminal.ask_secret(f"{question}: ")
            if again and secret:
                _refuse_controls(secret, question)
                second = terminal.ask_secret(f"{again}: ")
                same = second == secret
                wipe(second)
                if not same:
                    wipe(secret)
                    raise HsmAgentError("the two differ; nothing was changed")
        if not secret:
            raise HsmAgentError(f"nothing was given for: {question}; nothing was tried")
        return secret

    def agrees(self, warning: str, word: str) -> bool:
        """Say what will be lost, and ask."""
        self.say(warning)
        return self._yes or terminal.types(word, "ask in; use --yes")

    def asks(self, question: str) -> str:
        """Ask for what may be seen."""
        if self._from_stdin:
            raise UsageError(f"say it on the command line, as --stdin asks nothing: {question}")
        return terminal.ask_line(f"{question} ", "ask in; say it on the command line")

    def say(self, text: str) -> None:
        """Tell on stderr: stdout is for what a command was asked for."""
        print(text, file=sys.stderr, flush=True)

    def shows_once(self, text: str) -> None:
        """Show a secret on the terminal, and clear that when it is noted. Elsewhere print it."""
        if self._from_stdin or not sys.stderr.isatty():
            write(f"{text}\n")
            return
        terminal.ask_line(f"{_CLEAR}{text}\n\nPress Enter when it is noted. ", "show it in")
        terminal.show(_CLEAR)

    def progress(self, what: str) -> AbstractContextManager[progress.Tell]:
        """Show how far `what` is, in one line of a terminal."""
        return progress.shown(what)


def _refuse_controls(secret: bytearray, question: str) -> None:
    """Refuse a new secret that a stray Ctrl or arrow key has come into; wipes it then."""
    if any(byte < _SPACE or byte == _DELETE for byte in secret):
        wipe(secret)
        raise HsmAgentError(
            "a control character, such as Ctrl or an arrow key makes, was typed for:"
            f" {question}; nothing was changed"
        )
