"""A PinDialog that a test answers for, and an environment that stays."""

from collections.abc import Mapping

from hsmagent.frame import wipe
from hsmagent.prompt.base import Answer, Text
from hsmagent.prompt.environment import Environment

TEXT = Text(
    title="Unlock work",
    message="PIN for the token “work”",
    description="ssh ← git wants to log in to host as alice\nKey: ssh (ECDSA P-256)",
    ok="Unlock",
)


def always(environment: Mapping[str, str]) -> Environment:
    async def said() -> Mapping[str, str]:
        return environment

    return said


class FakeDialog:
    """A PinDialog whose PIN is `pin`; after `tries` wrong ones it says STOP."""

    def __init__(self, pin: bytes = b"123456", tries: int = 3) -> None:
        self.pin = pin
        self.left = tries
        self.pins: list[bytes] = []
        self.answers: list[Answer] = []
        self.warning = ""

    def text(self) -> Text:
        return Text(TEXT.title, TEXT.message, TEXT.description, self.warning, TEXT.ok)

    async def submit(self, pin: bytearray) -> Answer:
        typed = bytes(pin)
        wipe(pin)
        answer = self.judge(typed)
        self.answers.append(answer)
        return answer

    def judge(self, typed: bytes) -> Answer:
        if not typed:
            self.warning = "The PIN is empty."
            return Answer.AGAIN
        self.pins.append(typed)
        if typed == self.pin:
            return Answer.DONE
        self.left -= 1
        self.warning = f"Wrong PIN. Tries left: {self.left}."
        return Answer.AGAIN if self.left else Answer.STOP
