"""Stand-ins for desktop services, by Debian's python-dbusmock: each is a process of its own."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hsmagent.bus import Bus
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.until import until

MOCK = "org.freedesktop.DBus.Mock"


@contextmanager
def mocked(template: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a template of python-dbusmock on the bus at `address`, whichever kind it wants."""
    environment = {
        "PATH": os.environ["PATH"],
        "DBUS_SESSION_BUS_ADDRESS": address,
        "DBUS_SYSTEM_BUS_ADDRESS": address,
    }
    # Debian's own Python has the modules; ours need not.
    child = subprocess.Popen(
        ["/usr/bin/python3", "-I", "-m", "dbusmock", "--template", template],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


async def mock(  # noqa: PLR0917 - a call's own fields
    bus: Bus, name: str, path: str, member: str, signature: str = "", body: Sequence[Any] = ()
) -> list[Any]:
    """Call a method of a mock's control interface."""
    return await bus.call(name, path, MOCK, member, signature, body)


def notified(bus: PrivateBus, member: str) -> str:
    """Return the calls of a method that the notification daemon has had, as gdbus prints them."""
    name, path = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
    method = "org.freedesktop.DBus.Mock.GetMethodCalls"
    return subprocess.run(
        ["gdbus", "call", "--session", "-d", name, "-o", path, "-m", method, member],
        env=os.environ | {"DBUS_SESSION_BUS_ADDRESS": bus.address},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@contextmanager
def notifying_bus() -> Iterator[PrivateBus]:
    """Start a session bus with a notification daemon."""
    with private_bus() as bus:
        bus.start()
        with mocked("notification_daemon", bus.address):
            until(lambda: notified(bus, "Notify"))
            yield bus
