"""`hsmagent pkcs11`: the socket for programs that know keys by PKCS#11."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import socket

from hsmagent.cli.arguments import Given
from hsmagent.cli.daemon import start_logging
from hsmagent.config import file as config
from hsmagent.control.client import FACE
from hsmagent.daemon.listening import listen, make_folder
from hsmagent.daemon.systemd import Notifier, listen_sockets
from hsmagent.errors import ConfigError, UsageError
from hsmagent.folders import PKCS11_SOCKET, runtime_folder
from hsmagent.p11.server import Server
from hsmagent.worker.hardening import forbid_dumps

NAME = "pkcs11"  # the socket's FileDescriptorName


def run(given: Given) -> int:
    """Serve programs until told to stop. Return the exit status."""
    start_logging(debug=given.flag("--debug"))
    forbid_dumps()
    named = given.value("--config")
    file = Path(named or config.default_path()).absolute()
    if not config.load(file, required=bool(named)).pkcs11.enabled:
        raise UsageError(
            f"PKCS#11 programs are not served; write enabled = true below [pkcs11] in {file}"
        )
    runtime = Path(runtime_folder(given.value("--runtime-dir"))).absolute()
    asyncio.run(_serve(runtime, partial(_enabled, file)))
    return 0


def _enabled(file: Path) -> bool:
    """Whether PKCS#11 programs are still to be served. True while the file cannot be read."""
    try:
        return config.load(file).pkcs11.enabled
    except ConfigError:
        return True


async def _serve(runtime: Path, enabled: Callable[[], bool]) -> None:
    notifier = Notifier()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    given = listen_sockets().get(NAME)
    path = runtime / PKCS11_SOCKET
    listening = given or _listen(path)
    try:
        notifier.tell("READY=1")
        await Server(listening, str(runtime / f"{FACE}.sock"), enabled).run(stop)
    finally:
        if given is None:
            with suppress(FileNotFoundError):
                path.unlink()


def _listen(path: Path) -> socket:
    make_folder(path.parent.parent)
    make_folder(path.parent)
    return listen(path)
