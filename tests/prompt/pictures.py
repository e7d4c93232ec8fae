"""Takes pictures of the dialogs, for docs/pictures: gcr-prompter under Xvfb, with our own words.

usage: python -m tests.prompt.pictures FOLDER
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsmagent.control.face import A_MAIL
from hsmagent.frame import wipe
from hsmagent.model import (
    Destination,
    KeyType,
    Peer,
    PinState,
    Process,
    Purpose,
    PurposeKind,
    Request,
)
from hsmagent.prompt import words
from hsmagent.prompt.base import Answer, Text
from hsmagent.prompt.system import NAME, SystemPrompter, Timeouts
from tests.parts.desktop.bus import private_bus
from tests.parts.desktop.joined import joined
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.until import async_until
from tests.parts.values import KEY, STATUS

GCR_PROMPTER = "/usr/libexec/gcr-prompter"
LARGE = {"GDK_SCALE": "2"}  # sharp on today's screens; shown at half their size

PUSH = Request(
    key=KEY,
    purpose=Purpose(PurposeKind.SSH, "log in as git"),
    peer=Peer(1000, Process(3, "ssh"), (Process(2, "git"), Process(1, "zsh"))),
    destination=Destination("git.example.org"),
)
MAIL = Request(
    key=replace(KEY, key_type=KeyType.RSA, bits=2048, curve="", label="mail"),
    purpose=Purpose(PurposeKind.MAIL, "sign the mail “Minutes of Monday”"),
    peer=Peer(1000, Process(5, "hsmagent-smime"), (Process(4, "neomutt"),)),
)

THUNDERBIRD = Request(
    key=MAIL.key,
    purpose=Purpose(PurposeKind.PKCS11_MESSAGE, A_MAIL),
    peer=Peer(1000, Process(7, "thunderbird"), (Process(6, "gnome-shell"),)),
)


@dataclass
class WrongOnce:
    """A PinDialog that finds every PIN wrong."""

    requests: list[Request]
    tried: int = 0

    def text(self) -> Text:
        state = PinState.COUNT_LOW if self.tried else PinState.OK
        warning = "Wrong PIN." if self.tried else ""
        return words.ask_pin(replace(STATUS, pin_state=state), self.requests, warning)

    async def submit(self, pin: bytearray) -> Answer:
        wipe(pin)
        self.tried += 1
        return Answer.AGAIN


@asynccontextmanager
async def shown(display: Screen, dialog: Coroutine[Any, Any, object]) -> AsyncIterator[str]:
    """Show a dialog for the length of the block; gives its window, drawn."""
    task = asyncio.create_task(dialog)
    try:
        window = await asyncio.to_thread(display.wait_for_window)
        await settled(display, window)
        yield window
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(display.wait_until_empty)


async def settled(display: Screen, window: str) -> None:
    """Return once the window's size has stayed the same for a while."""
    last, same = "", 0
    while same < 5:
        await asyncio.sleep(0.1)
        geometry = display.xdotool("getwindowgeometry", window)
        same = same + 1 if geometry == last else 0
        last = geometry


async def take(folder: Path) -> None:
    """Take every picture."""
    with (
        screen("1600x1200x24") as display,
        private_bus(display.environment | LARGE) as private,
    ):
        private.add_service(NAME, GCR_PROMPTER)
        private.start()
        async with joined(private.address) as bus:
            prompter = SystemPrompter(bus, Timeouts())

            async def picture(name: str, dialog: Coroutine[Any, Any, object]) -> None:
                async with shown(display, dialog) as window:
                    await asyncio.to_thread(display.picture, window, folder / f"{name}.png")

            await picture("pin", prompter.ask_pin(WrongOnce([PUSH])))
            await picture("pkcs11", prompter.ask_pin(WrongOnce([THUNDERBIRD])))
            await picture("pin-two-requests", prompter.ask_pin(WrongOnce([PUSH, MAIL])))
            wrong = WrongOnce([PUSH])
            async with shown(display, prompter.ask_pin(wrong)) as window:
                await asyncio.to_thread(display.type, "000000")
                await asyncio.to_thread(display.press, "Return")
                await async_until(lambda: wrong.tried)
                await settled(display, window)
                await asyncio.to_thread(display.picture, window, folder / "wrong-pin.png")
            last = words.last_try(replace(STATUS, pin_state=PinState.FINAL_TRY), [PUSH])
            await picture("last-try", prompter.confirm(last))
            await picture("confirm", prompter.confirm(words.confirm(MAIL)))
            await picture("pin-pad", prompter.notice(words.use_pin_pad(STATUS, [PUSH])))


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
