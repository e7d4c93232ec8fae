"""Where the buses listen (D-Bus specification, "Server Addresses")."""

import os
from collections.abc import Iterator, Mapping
from urllib.parse import unquote


def session_address(environment: Mapping[str, str]) -> str:
    """Return the session bus's address, or "" where nothing says it."""
    address = environment.get("DBUS_SESSION_BUS_ADDRESS", "")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return address or (f"unix:path={runtime}/bus" if runtime else "")


def system_address(environment: Mapping[str, str]) -> str:
    """Return the system bus's address."""
    return environment.get("DBUS_SYSTEM_BUS_ADDRESS", "") or "unix:path=/run/dbus/system_bus_socket"


def socket_paths(address: str) -> Iterator[str]:
    """Yield the Unix sockets that an address names, in order; other transports are not for us.

    An abstract socket's path starts with a NUL, as `socket.connect` wants it.
    """
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        if transport != "unix":
            continue
        for pair in rest.split(","):
            key, _, value = pair.partition("=")
            if key == "path":
                yield unquote(value)
            elif key == "abstract":
                yield "\0" + unquote(value)


def may_be_there(path: str) -> bool:
    """Whether a socket may be at a path of `socket_paths`; an abstract one cannot be seen."""
    return "\0" in path or os.access(path, os.F_OK)
