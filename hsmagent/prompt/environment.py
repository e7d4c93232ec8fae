"""The environment for programs that show windows.

The daemon may have been started before there was a display: then the systemd user manager, which
the desktop tells about it, knows better than our own environment.
"""

import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from hsmagent.bus import Bus, BusError

Environment = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the environment; called anew for each dialog."""

_SYSTEMD, _SYSTEMD_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_TIMEOUT = 1.0
_LOCAL_X = re.compile(r"(?:unix)?:(\d+)(?:\.\d+)?")

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
    """Our own environment; if it names no display, with what the user manager knows of one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def __call__(self) -> Mapping[str, str]:
        """Return the environment as it is now. Never raises."""
        if shows_windows(os.environ):
            return os.environ
        try:
            where = (_SYSTEMD, _SYSTEMD_PATH, _MANAGER)
            told = await self._bus.get(*where, "Environment", _TIMEOUT)
        except BusError:
            return os.environ
        if not isinstance(told, list):
            return os.environ
        pairs = (str(entry).partition("=") for entry in told)
        return os.environ | {name: value for name, _, value in pairs if name in _OF_THE_SESSION}


def shows_windows(environment: Mapping[str, str]) -> bool:
    """Whether the display that is named takes connections: that of an earlier session does not.

    A display of another machine is taken to do so.
    """
    display, wayland = environment.get("DISPLAY", ""), environment.get("WAYLAND_DISPLAY", "")
    local = _LOCAL_X.fullmatch(display)
    if display and not local:
        return True
    path = f"/tmp/.X11-unix/X{local[1]}" if local else ""  # noqa: S108 - X(7) has it there
    places = [f"\0{path}", path] if local else []
    if wayland:
        places.append(str(Path(environment.get("XDG_RUNTIME_DIR", "/")) / wayland))
    return any(map(_listens, places))


def _listens(address: str) -> bool:
    """Whether a unix socket takes connections. Never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(address)
        except BlockingIOError:
            return True  # its queue is full: it listens
        except OSError:
            return False
    return True


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether a display is named."""
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def is_kde(environment: Mapping[str, str]) -> bool:
    """Whether this is KDE's desktop."""
    return "kde" in environment.get("XDG_CURRENT_DESKTOP", "").lower().split(":")
