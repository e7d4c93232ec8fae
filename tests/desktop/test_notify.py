"""Notifications, to python-dbusmock's notification daemon."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from hsmagent.bus import Bus
from hsmagent.config.file import NOTIFY
from hsmagent.desktop import notify
from hsmagent.desktop.notify import NAME, PATH, Notifications
from hsmagent.model import Key, KeyType, PinState, Purpose, PurposeKind
from tests.parts import values
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.dbusmock import mock, mocked
from tests.parts.until import async_until

WORK = replace(values.TOKEN, label="wo<b>rk\x1b")
LOGIN = replace(values.LOGIN, purpose=Purpose(PurposeKind.SSH, "log in as alice & co"))


AT_WORK = replace(LOGIN, key=replace(values.KEY, token=WORK))
FIDO = Key(b"", KeyType.ED25519_SK, 256, label="me@home", application="ssh:", touch=True)


@dataclass
class Screen:
    """The notification daemon, and what it was told to show."""

    bus: Bus

    async def calls(self, member: str) -> list[Any]:
        [calls] = await mock(self.bus, NAME, PATH, "GetMethodCalls", "s", [member])
        return [arguments for _time, arguments in calls]

    async def shows(self, times: int) -> list[Any]:
        async with asyncio.timeout(20):
            while len(calls := await self.calls("Notify")) < times:
                await asyncio.sleep(0.01)
        assert len(calls) == times
        return calls


@pytest.fixture
async def screen(private: PrivateBus, other: Bus) -> AsyncIterator[Screen]:
    with mocked("notification_daemon", private.address):
        owners: list[str] = []
        await other.watch_owner(NAME, owners.append)
        await async_until(lambda: owners and owners[-1])
        yield Screen(other)


@pytest.fixture
async def notifications(bus: Bus) -> AsyncIterator[Notifications]:
    notifications = Notifications(bus, lambda: NOTIFY, time.monotonic)
    yield notifications
    await notifications.stop()


async def test_a_use(screen: Screen, notifications: Notifications) -> None:
    notifications.used(LOGIN)
    [[program, replaces, _icon, summary, body, actions, hints, _expire]] = await screen.shows(1)
    assert (program, replaces, actions) == ("hsmagent", 0, [])
    assert summary == "ssh was used"
    assert body == "ssh ← git: log in as alice &amp; co at git.example.org"
    assert hints["urgency"] == 1
    await asyncio.sleep(0)
    await async_until(lambda: notifications._last_used)
    notifications.used(LOGIN)
    [_, second] = await screen.shows(2)
    assert second[1] == 1  # replaces the first


async def test_many_uses_are_few_notifications(
    screen: Screen, notifications: Notifications
) -> None:
    for _ in range(50):
        notifications.used(LOGIN)
    await async_until(lambda: not notifications._errands)
    assert len(await screen.calls("Notify")) == 3


async def test_a_wrong_pin_and_a_removal(screen: Screen, notifications: Notifications) -> None:
    notifications.wrong_pin(WORK, PinState.FINAL_TRY)
    notifications.removed(WORK)
    first, second = await screen.shows(2)
    assert (first[3], first[6]["urgency"]) == ("wo<b>rk\ufffd", 2)
    assert "One try is left" in first[4]
    assert second[3] == "wo<b>rk\ufffd was removed"


async def test_a_long_wait_is_shown_and_taken_back(
    screen: Screen, notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "WAITING_AFTER", 0.05)
    with notifications.waiting(AT_WORK), notifications.waiting(AT_WORK):
        [[*_, summary, _body, _actions, _hints, _expire]] = await screen.shows(1)
        assert summary == "wo<b>rk\ufffd waits for you"
        assert await screen.calls("CloseNotification") == []
    async with asyncio.timeout(20):
        while await screen.calls("CloseNotification") != [[1]]:
            await asyncio.sleep(0.01)


async def test_a_short_wait_is_not_shown(
    screen: Screen, notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "WAITING_AFTER", 0.05)
    with notifications.waiting(AT_WORK):
        pass
    await async_until(lambda: notifications._timer is None)
    assert not notifications._errands
    assert await screen.calls("Notify") == []


async def test_a_long_wait_behind_a_short_one_is_shown(
    screen: Screen, notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "WAITING_AFTER", 0.05)
    with notifications.waiting(AT_WORK):
        await asyncio.sleep(0.01)  # so that the timer is set for a wait that is over by then
    with notifications.waiting(AT_WORK):
        await screen.shows(1)


async def test_a_touch_is_asked_for_at_once_and_taken_back(
    screen: Screen, notifications: Notifications
) -> None:
    with notifications.waiting(replace(LOGIN, key=FIDO)):
        [[*_, summary, body, _actions, _hints, _expire]] = await screen.shows(1)
        assert summary == "Touch your key “me@home”"
        assert body == "ssh ← git: log in as alice &amp; co at git.example.org"
        assert await screen.calls("CloseNotification") == []
    async with asyncio.timeout(20):
        while await screen.calls("CloseNotification") != [[1]]:
            await asyncio.sleep(0.01)


async def test_who_was_told_to_touch_a_key_is_told_why_that_failed(
    screen: Screen, notifications: Notifications
) -> None:
    notifications.not_done(LOGIN, "the token did not answer")
    notifications.not_done(replace(LOGIN, key=FIDO), "the PIN of the FIDO key “me@home” is wrong")
    [[*_, summary, body, _actions, _hints, _expire]] = await screen.shows(1)
    assert summary == "The FIDO key was not used"
    assert body == "The PIN of the FIDO key “me@home” is wrong"


async def test_only_what_the_configuration_wants(screen: Screen, bus: Bus) -> None:
    quiet = Notifications(bus, lambda: ("removed",), lambda: 0.0)
    quiet.used(LOGIN)
    quiet.wrong_pin(WORK, PinState.OK)
    quiet.removed(WORK)
    [[_, _, _, summary, *_]] = await screen.shows(1)
    assert summary.endswith("was removed")
    await quiet.stop()


@pytest.mark.usefixtures("private")
async def test_what_a_pkcs11_program_does_not_say(
    notifications: Notifications, screen: Screen
) -> None:
    purpose = Purpose(PurposeKind.PKCS11_DIGEST, "sign something it does not describe")
    request = replace(AT_WORK, purpose=purpose)
    for _ in range(9):  # a server tries again with each connection
        notifications.not_done(request, "the person said no")
    for call in await screen.shows(3):
        assert call[3].endswith(f"could not use {request.key.label}")
        assert call[3].startswith(request.peer.process.program)
        assert call[4] == "The person said no"


async def test_without_a_daemon_nothing_fails(notifications: Notifications) -> None:
    for _ in range(10):
        notifications.removed(WORK)
    assert len(notifications._errands) == notify.MAX_AT_ONCE
    await async_until(lambda: not notifications._errands)
