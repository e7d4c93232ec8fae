import pytest

from hsmagent.bus import session_address, system_address
from hsmagent.bus.address import socket_paths


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/a", "XDG_RUNTIME_DIR": "/r"}, "unix:path=/a"),
        ({"XDG_RUNTIME_DIR": "/r"}, "unix:path=/r/bus"),
        ({}, ""),
    ],
)
def test_the_session_bus_is_where_the_environment_says(
    environment: dict[str, str], address: str
) -> None:
    assert session_address(environment) == address


def test_the_system_bus_has_a_place_of_its_own() -> None:
    assert system_address({}) == "unix:path=/run/dbus/system_bus_socket"
    assert system_address({"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/s"}) == "unix:path=/s"


@pytest.mark.parametrize(
    ("address", "paths"),
    [
        ("unix:path=/run/user/1000/bus,guid=0123", ["/run/user/1000/bus"]),
        ("unix:abstract=/tmp/dbus%2dx,guid=0", ["\0/tmp/dbus-x"]),
        ("tcp:host=localhost,port=1;unix:path=/b", ["/b"]),
        ("unix:path=/a;unix:path=/b", ["/a", "/b"]),
        ("", []),
        ("nonsense", []),
        ("unix:", []),
    ],
)
def test_socket_paths(address: str, paths: list[str]) -> None:
    assert list(socket_paths(address)) == paths
