"""Lock and sleep: python-dbusmock plays logind and the screen lockers."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hsmagent.bus import PROPERTIES, Bus, Variant
from hsmagent.desktop import let_go as lock
from hsmagent.desktop import logind
from hsmagent.desktop.let_go import Closed, Told, Why
from hsmagent.desktop.logind import Logind
from hsmagent.desktop.screensaver import ScreenSavers
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.dbusmock import mock, mocked
from tests.parts.until import async_until

LOGIND, LOGIND_PATH = logind.NAME, logind.PATH
GNOME, GNOME_PATH = "org.gnome.ScreenSaver", "/org/gnome/ScreenSaver"
FREEDESKTOP, FREEDESKTOP_PATH = "org.freedesktop.ScreenSaver", "/org/freedesktop/ScreenSaver"


@dataclass
class Ears:
    """What was told."""

    let_go: list[Why] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    takes: float = 0.0

    async def on_let_go(self, why: Why) -> None:
        await asyncio.sleep(self.takes)
        self.let_go.append(why)

    @property
    def told(self) -> Told:
        return Told(self.on_let_go, self.closed.append)

    @property
    def reason(self) -> str:
        return self.closed[-1] if self.closed else ""


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def closed(ears: Ears) -> AsyncIterator[Closed]:
    state = Closed(ears.told)
    yield state
    await state.stop()


async def has_owner(bus: Bus, name: str) -> None:
    owners: list[str] = []
    undo = await bus.watch_owner(name, owners.append)
    await async_until(lambda: owners and owners[-1])
    undo()


@dataclass
class Desk:
    """The mock logind, with a session for us; `bus` is not the one under test."""

    bus: Bus
    session: str

    async def control(
        self, member: str, signature: str = "", body: Any = (), path: str = ""
    ) -> Any:
        reply = await mock(self.bus, LOGIND, path or LOGIND_PATH, member, signature, body)
        return reply[0] if reply else None

    async def call(self, member: str, signature: str = "", body: Any = ()) -> None:
        await self.bus.call(LOGIND, self.session, logind.SESSION, member, signature, body)

    async def sleep(self, *, start: bool) -> None:
        body = [logind.MANAGER, "PrepareForSleep", "b", [Variant("b", start)]]
        await self.control("EmitSignal", "sssav", body)

    async def inhibitors(self) -> list[Any]:
        reply = await self.bus.call(LOGIND, LOGIND_PATH, logind.MANAGER, "ListInhibitors")
        found: list[Any] = reply[0]
        return found


@pytest.fixture
async def desk(private: PrivateBus, other: Bus) -> AsyncIterator[Desk]:
    with mocked("logind", private.address):
        await has_owner(other, LOGIND)
        desk = Desk(other, "")
        # The template's own GetUser stumbles over a number.
        code = f'ret = "{LOGIND_PATH}/user/" + str(args[0])'
        await desk.control("AddMethod", "sssss", [logind.MANAGER, "GetUser", "u", "o", code])
        body = ["c2", "seat0", os.getuid(), "me", True]
        desk.session = await desk.control("AddSession", "ssusb", body)
        user = f"{LOGIND_PATH}/user/{os.getuid()}"
        display = [logind.USER, "Display", Variant("(so)", ["c2", desk.session])]
        await other.call(LOGIND, user, PROPERTIES, "Set", "ssv", display)
        yield desk


@pytest.fixture
async def watch(bus: Bus, closed: Closed, desk: Desk) -> AsyncIterator[Logind]:
    watch = Logind(bus, closed)
    await watch.start()
    await inhibited(desk)
    yield watch
    watch.stop()


async def inhibited(desk: Desk, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(await desk.inhibitors()) != times:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("watch")
async def test_the_screen_is_locked_and_unlocked(desk: Desk, ears: Ears) -> None:
    await desk.call("SetLockedHint", "b", [True])
    await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])
    assert ears.closed == ["the screen is locked"]
    await desk.call("SetLockedHint", "b", [False])
    await async_until(lambda: ears.reason == "")
    assert ears.let_go == [Why.SCREEN_LOCK]


@pytest.mark.usefixtures("watch")
async def test_a_wish_to_lock_ends_the_logins_only(desk: Desk, ears: Ears) -> None:
    await desk.call("Lock")
    await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])
    assert ears.closed == []


async def test_a_screen_that_was_locked_before_we_came(
    bus: Bus, closed: Closed, desk: Desk, ears: Ears
) -> None:
    await desk.call("SetLockedHint", "b", [True])
    watch = Logind(bus, closed)
    await watch.start()
    await async_until(lambda: ears.reason)
    watch.stop()


@pytest.mark.usefixtures("watch")
async def test_another_session_is_not_ours(desk: Desk, ears: Ears) -> None:
    body = ["c9", "seat0", os.getuid() + 1, "you", True]
    ours, desk.session = desk.session, await desk.control("AddSession", "ssusb", body)
    await desk.call("Lock")
    await desk.call("SetLockedHint", "b", [True])
    desk.session = ours
    await desk.call("Lock")
    await async_until(lambda: ears.let_go)
    assert (ears.let_go, ears.closed) == ([Why.SCREEN_LOCK], [])


async def test_the_session_may_be_given_by_its_id(
    bus: Bus, closed: Closed, desk: Desk, ears: Ears
) -> None:
    watch = Logind(bus, closed, "c2")
    await watch.start()
    await inhibited(desk)
    await desk.call("Lock")
    await async_until(lambda: ears.let_go)
    watch.stop()


@pytest.mark.usefixtures("watch")
async def test_the_end_of_the_session_lets_go(desk: Desk, ears: Ears) -> None:
    body = [
        logind.MANAGER,
        *("SessionRemoved", "so", [Variant("s", "c2"), Variant("o", desk.session)]),
    ]
    await desk.control("EmitSignal", "sssav", body)
    await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])


@pytest.mark.usefixtures("watch")
async def test_sleep_waits_until_the_tokens_are_logged_out(desk: Desk, ears: Ears) -> None:
    [[what, who, _why, mode, *_]] = await desk.inhibitors()
    assert (what, who, mode) == ("sleep", "hsmagent", "delay")
    ears.takes = 0.3
    await desk.sleep(start=True)
    await async_until(lambda: ears.reason == "the computer goes to sleep")
    assert ears.let_go == []
    assert len(await desk.inhibitors()) == 1
    await inhibited(desk, 0)
    assert ears.let_go == [Why.SUSPEND]
    await desk.sleep(start=False)
    await inhibited(desk)
    assert ears.reason == ""


@pytest.mark.usefixtures("watch")
async def test_a_token_that_hangs_does_not_hold_sleep_back_for_ever(
    desk: Desk, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LET_GO_TIMEOUT", 0.2)
    ears.takes = 3600
    await desk.sleep(start=True)
    await async_until(lambda: ears.reason)
    await inhibited(desk, 0)


async def test_the_inhibitor_is_let_go_of_at_the_end(watch: Logind, desk: Desk) -> None:
    assert not os.get_inheritable(watch._inhibitor)
    watch.stop()
    await inhibited(desk, 0)


@pytest.mark.usefixtures("watch")
async def test_a_stranger_is_not_believed(desk: Desk, other: Bus, ears: Ears) -> None:
    for iface, member in ((logind.SESSION, "Lock"), (logind.SESSION, "Unlock")):
        other.emit(desk.session, iface, member)
    other.emit(LOGIND_PATH, logind.MANAGER, "PrepareForSleep", "b", [True])
    await desk.call("SetLockedHint", "b", [True])
    await async_until(lambda: ears.let_go)
    assert ears.let_go == [Why.SCREEN_LOCK]
    other.emit(
        desk.session,
        PROPERTIES,
        "PropertiesChanged",
        "sa{sv}as",
        [logind.SESSION, {"LockedHint": Variant("b", value=False)}, []],
    )
    await desk.inhibitors()
    assert ears.reason


async def test_logind_may_come_later_and_come_again(
    private: PrivateBus, bus: Bus, other: Bus, closed: Closed
) -> None:
    watch = Logind(bus, closed)
    await watch.start()
    for _ in range(2):
        with mocked("logind", private.address):
            await has_owner(other, LOGIND)
            await inhibited(Desk(other, ""))
    watch.stop()


async def test_a_wake_up_that_nobody_told_us_of(
    private: PrivateBus, bus: Bus, other: Bus, closed: Closed, ears: Ears
) -> None:
    watch = Logind(bus, closed)
    await watch.start()
    with mocked("logind", private.address):
        await has_owner(other, LOGIND)
        await inhibited(Desk(other, ""))
        await Desk(other, "").sleep(start=True)
        await async_until(lambda: ears.reason == "the computer goes to sleep")
    with mocked("logind", private.address):
        await async_until(lambda: ears.reason == "")
    watch.stop()


# -- screen lockers --------------------------------------------------------------------------


@pytest.fixture
async def savers(bus: Bus, closed: Closed) -> AsyncIterator[ScreenSavers]:
    watch = ScreenSavers(bus, closed)
    await watch.start()
    yield watch
    watch.stop()


async def set_active(bus: Bus, *, active: bool) -> None:
    await bus.call(GNOME, GNOME_PATH, GNOME, "SetActive", "b", [active])


@pytest.mark.usefixtures("savers")
async def test_gnomes_locker(private: PrivateBus, other: Bus, ears: Ears) -> None:
    with mocked("gnome_screensaver", private.address):
        await has_owner(other, GNOME)
        await set_active(other, active=True)
        await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])
        await set_active(other, active=False)
        await async_until(lambda: ears.closed == ["the screen is locked", ""])
        await set_active(other, active=True)
        await async_until(lambda: len(ears.let_go) == 2)
    # It died with the screen locked, and cannot say any more when that is over.
    await async_until(lambda: ears.reason == "")


async def test_a_locker_that_was_active_before_we_came(
    private: PrivateBus, bus: Bus, other: Bus, closed: Closed, ears: Ears
) -> None:
    with mocked("gnome_screensaver", private.address):
        await has_owner(other, GNOME)
        await set_active(other, active=True)
        watch = ScreenSavers(bus, closed)
        await watch.start()
        await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])
        watch.stop()


@pytest.mark.usefixtures("savers")
async def test_one_locker_does_not_speak_for_another(
    private: PrivateBus, other: Bus, ears: Ears
) -> None:
    with mocked("gnome_screensaver", private.address):
        await has_owner(other, GNOME)
        await set_active(other, active=True)
        await async_until(lambda: ears.reason)
        # A stranger takes the other name, says "not active", then tries GNOME's words.
        assert await other.request_name(FREEDESKTOP)
        other.emit(FREEDESKTOP_PATH, FREEDESKTOP, "ActiveChanged", "b", [False])
        other.emit(GNOME_PATH, GNOME, "ActiveChanged", "b", [False])
        other.emit(FREEDESKTOP_PATH, FREEDESKTOP, "ActiveChanged", "s", ["nonsense"])
        other.emit("/ScreenSaver", FREEDESKTOP, "ActiveChanged", "b", [True])
        other.emit(FREEDESKTOP_PATH, FREEDESKTOP, "ActiveChanged", "b", [False])
        await other.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId")
        await async_until(lambda: len(ears.closed) == 3)
        assert ears.reason == "the screen is locked"


@pytest.mark.usefixtures("savers", "watch")
async def test_any_one_of_them_is_enough(
    private: PrivateBus, other: Bus, desk: Desk, ears: Ears
) -> None:
    with mocked("gnome_screensaver", private.address):
        await has_owner(other, GNOME)
        await set_active(other, active=True)
        await desk.call("SetLockedHint", "b", [True])
        await async_until(lambda: len(ears.let_go) == 2)
        await set_active(other, active=False)
        await async_until(lambda: len(ears.closed) == 3)
        assert ears.reason == "the screen is locked"
        await desk.call("SetLockedHint", "b", [False])
        await async_until(lambda: ears.reason == "")


@pytest.mark.usefixtures("savers")
async def test_after_a_restart_of_the_bus_it_listens_again(
    private: PrivateBus, bus: Bus, other: Bus, ears: Ears
) -> None:
    private.stop()
    await async_until(lambda: not bus.connected)
    private.start()
    await async_until(lambda: bus.connected and other.connected)
    with mocked("gnome_screensaver", private.address):
        await has_owner(other, GNOME)
        await set_active(other, active=True)
        await async_until(lambda: ears.let_go == [Why.SCREEN_LOCK])
