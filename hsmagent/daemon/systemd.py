"""The two small protocols of systemd that a service speaks: LISTEN_FDS and NOTIFY_SOCKET.

Both are environment variables and a socket (sd_listen_fds(3), sd_notify(3)). The variables are
taken out of the environment, so that no child believes they are meant for it.
"""

import os
import socket
from contextlib import suppress

FIRST_FD = 3


def listen_sockets() -> dict[str, socket.socket]:
    """Return the sockets that systemd hands us, by FileDescriptorName; {} without activation."""
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    sockets = {}
    for index in range(int(count)):
        listening = socket.socket(fileno=FIRST_FD + index)
        listening.set_inheritable(False)
        listening.settimeout(0)
        sockets[names[index] if index < len(names) else ""] = listening
    return sockets


class Notifier:
    """Tells the service manager our state: `READY=1`, `RELOADING=1`, `STOPPING=1`."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]

    def tell(self, *assignments: str) -> None:
        """Send assignments such as "READY=1"; does nothing without a manager that listens."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto("\n".join(assignments).encode(), self._address)
