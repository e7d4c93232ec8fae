"""Whether pcscd, the smart card service, serves us. When not, a module just sees no readers."""

import asyncio
import os
import struct
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path

REFUSED = (
    "the smart card service pcscd refuses us, and so no reader is seen: polkit gives smart cards to"
    " sessions at the machine itself; permit org.debian.pcsc-lite.access_pcsc and .access_card"
)

_SOCKET = "/run/pcscd/pcscd.comm"
_SECONDS = 2.0
# pcsc-lite's winscard_msg.h: size and command of a message; protocol version and return value.
_CMD_VERSION = 0x11
_HEADER = struct.Struct("=II")
_VERSION = struct.Struct("=iiI")
_PROTOCOL = (4, 3, 0)


class Service(Enum):
    """How pcscd answers."""

    ABSENT = auto()
    REFUSES = auto()  # it hangs up at once: polkit said no
    SERVES = auto()


def socket_of(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where clients in this environment look for pcscd's socket."""
    return Path(environment.get("PCSCLITE_CSOCK_NAME") or _SOCKET)


async def ask(path: Path) -> Service:
    """Return how pcscd answers when we begin to speak to it as a client does. Never raises."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
    except (OSError, TimeoutError):
        return Service.ABSENT
    try:
        writer.write(_HEADER.pack(_VERSION.size, _CMD_VERSION) + _VERSION.pack(*_PROTOCOL))
        async with asyncio.timeout(_SECONDS):
            answer = await reader.read(1)
    except ConnectionError:
        answer = b""
    except TimeoutError:
        return Service.SERVES  # it is busy, or being started by systemd
    finally:
        writer.close()
    return Service.SERVES if answer else Service.REFUSES
