"""Where windows can be shown: what our own environment says, or the systemd user manager."""

import os
from collections.abc import Sequence
from typing import Any

import pytest

from hsmagent.bus import Bus, Message, Variant
from hsmagent.prompt.environment import SessionEnvironment, own_environment
from tests.parts.bus import PrivateBus

SYSTEMD = "org.freedesktop.systemd1"
THERE = ["DISPLAY=:7", "XDG_CURRENT_DESKTOP=KDE", "PATH=/elsewhere", "LD_PRELOAD=x", "EMPTY"]


async def manager(bus: Bus, value: Variant) -> None:
    """Stand in for the user manager."""

    async def answer(call: Message) -> tuple[str, Sequence[Any]]:
        assert call.body == [f"{SYSTEMD}.Manager", "Environment"]
        return "v", [value]

    bus.export("/org/freedesktop/systemd1", answer)
    assert await bus.request_name(SYSTEMD)


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


async def test_our_own_display_comes_first(
    bus: Bus, other_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":3")
    await manager(other_bus, Variant("as", THERE))
    environment = await SessionEnvironment(bus)()
    assert environment["DISPLAY"] == ":3"
    assert await own_environment() == os.environ


async def test_the_manager_knows_of_a_display_that_came_later(
    no_display: None, bus: Bus, other_bus: Bus
) -> None:
    await manager(other_bus, Variant("as", THERE))
    environment = await SessionEnvironment(bus)()
    assert environment == os.environ | {"DISPLAY": ":7", "XDG_CURRENT_DESKTOP": "KDE"}


async def test_a_manager_that_is_absent_or_odd_changes_nothing(
    no_display: None, bus: Bus, other_bus: Bus, private: PrivateBus
) -> None:
    assert await SessionEnvironment(bus)() == os.environ
    await manager(other_bus, Variant("u", 7))
    assert await SessionEnvironment(bus)() == os.environ
    private.stop()
    assert await SessionEnvironment(bus)() == os.environ
