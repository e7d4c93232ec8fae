"""Where windows can be shown: what our own environment says, or the systemd user manager."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hsmagent.bus import Bus, Message, Variant
from hsmagent.prompt.environment import SessionEnvironment, own_environment, shows_windows
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.xvfb import screen

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
    no_display: None, bus: Bus, other_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager(other_bus, Variant("as", THERE))
    with screen() as ours:
        monkeypatch.setenv("DISPLAY", f"{ours.display}.0")
        environment = await SessionEnvironment(bus)()
    assert environment["DISPLAY"] == f"{ours.display}.0"
    assert await own_environment() == os.environ


async def test_a_display_that_has_gone_is_none(
    no_display: None, bus: Bus, other_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We outlive the session that we were started in."""
    with screen() as former:
        monkeypatch.setenv("DISPLAY", former.display)
    await manager(other_bus, Variant("as", THERE))
    environment = await SessionEnvironment(bus)()
    assert environment["DISPLAY"] == ":7"


def test_a_compositor_is_a_socket_in_the_runtime_folder(tmp_path: Path) -> None:
    named = {"XDG_RUNTIME_DIR": str(tmp_path), "WAYLAND_DISPLAY": "wayland-0"}
    assert not shows_windows(named)
    with socket.socket(socket.AF_UNIX) as compositor:
        compositor.bind(str(tmp_path / "wayland-0"))
        assert not shows_windows(named)
        compositor.listen()
        assert shows_windows(named)
        assert shows_windows({"WAYLAND_DISPLAY": str(tmp_path / "wayland-0")})


def test_a_display_elsewhere_is_believed() -> None:
    assert shows_windows({"DISPLAY": "localhost:10.0"})
    assert not shows_windows({})


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
