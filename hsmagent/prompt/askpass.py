"""SSH_ASKPASS: a program that asks one question, given as its argument (ssh(1), ENVIRONMENT).

The program prints the answer and exits with 0. Any other exit status is a "no", unless it comes at
once and with an error message: then the program has no display. It has no place for a warning, so
ours stands first in the question. A program that does not know SSH_ASKPASS_PROMPT asks for a
confirmation as for any answer: as with ssh, an empty answer and "yes" are a yes.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from hsmagent.errors import TimedOut, Unavailable
from hsmagent.frame import wipe
from hsmagent.prompt.base import PinDialog, Text, ask_until_served
from hsmagent.prompt.child import Child, running
from hsmagent.prompt.environment import Environment, has_display

# Where ssh and the distributions have it when SSH_ASKPASS does not say.
_PLACES = (
    "/usr/bin/ssh-askpass",
    "/usr/lib/ssh/ssh-askpass",
    "/usr/libexec/openssh/ssh-askpass",
    "/usr/lib/openssh/gnome-ssh-askpass",
)
_LONGEST_PIN = 1024


class Askpass:
    """Asks with the program that SSH_ASKPASS names.

    environment: of the person's session. answer_timeout: seconds.
    """

    name = "askpass"

    def __init__(self, environment: Environment, answer_timeout: float) -> None:
        self._environment = environment
        self._timeout = answer_timeout

    async def ask_pin(self, dialog: PinDialog) -> None:
        """Ask until the PIN serves, one window after the other."""
        await ask_until_served(dialog, self._answer)

    async def confirm(self, text: Text) -> bool:
        """Ask yes or no, in the way that the program has for that."""
        answer = await self._answer(text, "confirm")
        if answer is None:
            return False
        agreed = bytes(answer).strip().lower() in {b"", b"yes"}
        wipe(answer)
        return agreed

    async def notice(self, text: Text) -> None:
        """Show `text` until it is closed or we are cancelled."""
        async with self._asking(text, "none", None) as child:
            await _status(child)

    async def _answer(self, text: Text, kind: str = "") -> bytearray | None:
        """Return the line that the program printed, for the caller to wipe; None for a no."""
        buffer = bytearray(_LONGEST_PIN)
        try:
            async with self._asking(text, kind, self._timeout) as child:
                length = await _read(child, buffer)
                if await _status(child) != 0:
                    return None
            end = buffer.find(b"\n", 0, length)
            return buffer[: length if end < 0 else end]  # the only copy, which the caller wipes
        finally:
            wipe(buffer)

    @asynccontextmanager
    async def _asking(self, text: Text, kind: str, seconds: float | None) -> AsyncIterator[Child]:
        environment = dict(await self._environment())
        program = find_program(environment)
        environment.pop("SSH_ASKPASS_PROMPT", None)
        if kind:
            environment["SSH_ASKPASS_PROMPT"] = kind
        try:
            async with (
                running([program, _question(text)], environment) as child,
                asyncio.timeout(seconds),
            ):
                yield child
        except TimeoutError:
            raise TimedOut("nobody answered the prompt in time") from None


def find_program(environment: Mapping[str, str]) -> str:
    """Return the askpass program. Raises Unavailable."""
    if not has_display(environment):
        raise Unavailable("ssh-askpass has no display to show a window on")
    named = environment.get("SSH_ASKPASS", "")
    if named:
        return named
    for place in _PLACES:
        if Path(place).exists():
            return place
    raise Unavailable("there is no ssh-askpass program; SSH_ASKPASS can name one")


def _question(text: Text) -> str:
    return "\n\n".join(filter(None, (text.warning, text.message, text.description)))


async def _read(child: Child, buffer: bytearray) -> int:
    """Read to the end, and return the length. Raises Unavailable for more than the buffer holds."""
    length = 0
    with memoryview(buffer) as view:
        while count := await child.read_into(view[length:]):
            length += count
            if length == len(buffer):
                raise Unavailable("ssh-askpass printed more than a PIN")
    return length


async def _status(child: Child) -> int:
    """Return the exit status. Raises Unavailable when the program crashed or could not ask."""
    status = await child.exit_status()
    if status < 0:
        raise Unavailable(f"ssh-askpass was ended by signal {-status}")
    if status > 0 and child.fell_over:
        raise Unavailable(
            f"ssh-askpass left at once, with exit status {status} and a complaint; "
            "is there a window system where DISPLAY or WAYLAND_DISPLAY says?"
        )
    return status
