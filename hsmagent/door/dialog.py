"""How a PIN is asked for: the dialog, three answers in vain, the question before the last try."""

import hashlib
import os
from collections.abc import Awaitable, Callable

from hsmagent.errors import (
    Cancelled,
    HsmAgentError,
    PinIncorrect,
    PinLength,
    Refused,
    TriesLow,
)
from hsmagent.frame import wipe
from hsmagent.model import PinState, Request, TokenStatus, name_of
from hsmagent.prompt import words
from hsmagent.prompt.base import Answer, Prompter, Text
from hsmagent.token.failures import locked

# As gpg-agent and ssh do it. Not every token counts wrong PINs, and not every answer is a person's:
# some programs that stand in for ssh-askpass print the same thing for ever.
MOST_IN_VAIN = 3


Attempt = Callable[[bytearray, PinState], Awaitable[None]]
"""Tries a PIN, unless the token's PIN state is worse than this one by now."""

Words = Callable[[TokenStatus, list[Request], str], Text]
"""Returns the text of a dialog for a token, requests, and what went wrong before ("" at first)."""


class Dialog:
    """A PinDialog: hands each typed PIN to `attempt`, and turns the outcome into an answer.

    at_worst: the PIN state that the person knows of. say: the text.
    """

    def __init__(
        self,
        status: Callable[[], TokenStatus],
        requests: Callable[[], list[Request]],
        attempt: Attempt,
        say: Words = words.ask_pin,
    ) -> None:
        self._say = say
        self._status = status
        self._requests = requests
        self._attempt = attempt
        self._warning = ""
        self._in_vain = 0
        self._salt = os.urandom(16)
        self._refused: set[bytes] = set()  # salted hashes of PINs that were wrong
        self.at_worst = PinState.COUNT_LOW
        self.error: HsmAgentError | None = None

    def text(self) -> Text:
        """Return the text of the dialog as it is to be shown now."""
        return self._say(self._status(), self._requests(), self._warning)

    async def submit(self, pin: bytearray) -> Answer:
        """Try the PIN once, and say how the dialog goes on."""
        if not pin:
            return self._again("The PIN is empty.")
        hashed = hashlib.blake2b(pin, key=self._salt).digest()
        if hashed in self._refused:
            wipe(pin)
            return self._again("That PIN was wrong just now, and was not tried again.")
        try:
            await self._attempt(pin, self.at_worst)
        except PinLength as error:
            return self._again(f"{error}.")
        except PinIncorrect as error:
            self._refused.add(hashed)
            return self._again_or_stop(error)
        except HsmAgentError as error:
            self.error = error
            return Answer.STOP
        finally:
            wipe(pin)
        self.error = None
        return Answer.DONE

    def is_over(self) -> bool:
        """Whether a PIN was accepted; False if another PIN may serve. Raises any other error."""
        if self.error is None or isinstance(self.error, PinIncorrect | TriesLow):
            return self.error is None
        raise self.error

    def _again_or_stop(self, error: PinIncorrect) -> Answer:
        status = self._status()
        if status.pin_state is PinState.LOCKED:
            self.error = locked(status.id)
            return Answer.STOP
        if status.pin_state is PinState.FINAL_TRY:
            # Before the last try a question is asked: this dialog stops, and that one comes first.
            self._warning, self.error = "Wrong PIN.", error
            return Answer.STOP
        return self._again("Wrong PIN.")

    def _again(self, warning: str) -> Answer:
        self._warning = warning
        self._in_vain += 1
        if self._in_vain < MOST_IN_VAIN:
            return Answer.AGAIN
        self.error = Refused(f"{MOST_IN_VAIN} answers in a row were not the PIN; try again")
        return Answer.STOP


async def ask_for_pin(
    prompter: Prompter,
    status: Callable[[], TokenStatus],
    requests: Callable[[], list[Request]],
    attempt: Attempt,
    *,
    say: Words = words.ask_pin,
    typed: bytearray | None = None,
) -> None:
    """Ask until `attempt` accepts a PIN. Raises what ended it: Refused, TokenError, Unavailable.

    typed: a PIN that the person has typed for this already; it is tried first, and wiped.
    """
    dialog = Dialog(status, requests, attempt, say)
    if typed and await dialog.submit(typed) is not Answer.AGAIN and dialog.is_over():
        return
    while True:
        dialog.at_worst = await confirm_last_try(prompter, status(), requests())
        await prompter.ask_pin(dialog)
        if dialog.is_over():
            return


class OnePin:
    """A PinDialog that takes the PIN of a FIDO key, for one use.

    The window closes before the PIN is tried: the key waits for a touch then, and other dialogs may
    be shown meanwhile.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self.pin = bytearray()

    def text(self) -> Text:
        """Return the text of the dialog."""
        return words.ask_fido_pin(self._request)

    async def submit(self, pin: bytearray) -> Answer:
        """Keep the PIN."""
        self.pin = pin[:]
        wipe(pin)
        return Answer.DONE


async def ask_for_one_pin(prompter: Prompter, request: Request) -> bytearray:
    """Ask for the PIN of a FIDO key; the caller wipes it. Raises Refused, Unavailable."""
    dialog = OnePin(request)
    await prompter.ask_pin(dialog)
    if not dialog.pin:
        raise Refused("the PIN was left empty, and not tried")
    return dialog.pin


async def confirm_last_try(
    prompter: Prompter, status: TokenStatus, requests: list[Request]
) -> PinState:
    """Before the try that may block the token, ask whether to go on. Raises Cancelled.

    Returns the worst PIN state in which a PIN may be tried now.
    """
    if status.pin_state is not PinState.FINAL_TRY:
        return PinState.COUNT_LOW
    if not await prompter.confirm(words.last_try(status, requests)):
        raise Cancelled(f"the last try for {name_of(status.id)} was left untouched")
    return PinState.FINAL_TRY
