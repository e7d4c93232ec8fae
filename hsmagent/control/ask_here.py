"""The operation of `hsmagent ask-here`: to be asked in the terminal in which that command runs.

After the answer, the daemon tells `{"ask": …}` and `{"over": …}` by itself (`prompt.ask_here`).
Each further frame of the client answers a question: ANSWER_YES or ANSWER_NO, the question's number
in four bytes, and the PIN where one was asked for.
"""

from functools import partial

from hsmagent.control.client import ANSWER_NO, ANSWER_YES
from hsmagent.control.conversation import Answer, Asked, Secret
from hsmagent.errors import Refused, UsageError
from hsmagent.prompt.ask_here import AskHere, Place
from hsmagent.who.terminal import seat_of

_HEAD = 5


class AskHereOperation:
    """The operation, over the prompter that asks in terminals."""

    def __init__(self, prompter: AskHere) -> None:
        self._prompter = prompter

    async def open(self, asked: Asked) -> Secret:
        """Ask in the terminal of the client, until the client hangs up."""
        seat = seat_of(asked.peer().process.pid)
        if seat is None:
            raise Refused("ask-here needs a terminal, and the files that the agent sees")
        place = self._prompter.open(seat.where, seat.serves, asked.tell)
        asked.at_end(partial(self._prompter.close, place))
        return Secret({"terminal": seat.where}, partial(self._take, place))

    def shown(self) -> list[Answer]:
        """Return every terminal in which persons are asked, for `status`."""
        return [{"terminal": where} for where in self._prompter.where()]

    async def _take(self, place: Place, frame: bytearray) -> Secret:
        """Take an answer; the next frame is one, too."""
        if len(frame) < _HEAD or frame[0] not in (ANSWER_NO, ANSWER_YES):
            raise UsageError("the frame holds no answer to a question")
        pin = frame[_HEAD:] if frame[0] == ANSWER_YES else None
        place.answered(int.from_bytes(frame[1:_HEAD], "big"), pin)
        return Secret({}, partial(self._take, place))
