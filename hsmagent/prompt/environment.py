"""The environment for programs that show windows.

The daemon may have been started before there was a display: then the systemd user manager, which
the desktop tells about it, knows better than our own environment.
"""

import os
from collections.abc import Awaitable, Callable, Mapping

from hsmagent.bus import Bus, BusError

Environment = Callable[[], Awaitable[Mapping[str, str]]]
"""Says the environment; asked anew for each dialog."""

_SYSTEMD, _SYSTEMD_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_TIMEOUT = 1.0

# What we take from the manager. The rest of a program's environment is ours.
_OF_THE_SESSION = {
    "DISPLAY",
    "SSH_ASKPASS",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CURRENT_DESKTOP",
    "XDG_SESSION_TYPE",
}


async def own_environment() -> Mapping[str, str]:
    """Return our own environment."""
    return os.environ


class SessionEnvironment:
    """Our own environment; where it names no display, with what the user manager knows of one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def __call__(self) -> Mapping[str, str]:
        """Return the environment as it is now. Never raises."""
        if has_display(os.environ):
            return os.environ
        try:
            reply = await self._bus.call(
                *(_SYSTEMD, _SYSTEMD_PATH, _PROPERTIES, "Get", "ss", [_MANAGER, "Environment"]),
                returns="v",
                timeout=_TIMEOUT,
            )
        except BusError:
            return os.environ
        if not isinstance(reply[0], list):
            return os.environ
        pairs = (str(entry).partition("=") for entry in reply[0])
        return os.environ | {name: value for name, _, value in pairs if name in _OF_THE_SESSION}


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether a window can be shown."""
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def is_kde(environment: Mapping[str, str]) -> bool:
    """Whether this is KDE's desktop."""
    return "kde" in environment.get("XDG_CURRENT_DESKTOP", "").lower().split(":")
