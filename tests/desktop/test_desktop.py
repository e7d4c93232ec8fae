"""All of it at once, on buses that come late or never."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hsmagent.bus import Bus
from hsmagent.desktop.desktop import Desktop
from hsmagent.desktop.let_go import Told, Why
from hsmagent.desktop.service import AGENT, NAME, PATH, Agent, Caller
from hsmagent.model import TokenId
from tests.parts.bus import PrivateBus
from tests.parts.dbusmock import mocked
from tests.parts.until import async_until

GNOME = "org.gnome.ScreenSaver"


async def no_lock(_tokens: Sequence[TokenId]) -> None:
    pass


async def no_unlock(_token: TokenId, _caller: Caller) -> None:
    pass


async def test_it_bears_that_a_bus_comes_late_and_the_other_never(
    private: PrivateBus, tmp_path: Path, other: Bus
) -> None:
    let_go: list[Why] = []

    async def on_let_go(why: Why) -> None:
        let_go.append(why)

    session = Bus(lambda: private.address)
    desktop = Desktop(
        session,
        Bus(lambda: f"unix:path={tmp_path}/none", "system"),
        agent=Agent(tuple, no_lock, no_unlock, lambda: 0.0),
        told=Told(on_let_go, lambda _reason: None),
        events=tuple,
        clock=lambda: 0.0,
    )
    private.stop()
    await async_until(lambda: not other.connected)
    task = asyncio.create_task(desktop.run())
    await asyncio.sleep(0)
    desktop.service.changed()
    private.start()
    await async_until(lambda: other.connected and session.connected)
    await other.call(NAME, PATH, AGENT, "LockAll")
    with mocked("gnome_screensaver", private.address):
        owners: list[str] = []
        await other.watch_owner(GNOME, owners.append)
        await async_until(lambda: owners and owners[-1])
        await other.call(GNOME, "/org/gnome/ScreenSaver", GNOME, "SetActive", "b", [True])
        await async_until(lambda: let_go == [Why.SCREEN_LOCK])
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert not session.connected
