"""A pcscd of our own, with a virtual reader, beside any that is there.

- Its clients' socket is handed to it as systemd would, so that it lies where we want it.
- Its reader listens on a port that we chose; the driver knows no other way.
- It keeps its pid file in /run/pcscd whatever we say, and a USB reader of the machine would draw
  its interest. So it runs in a mount namespace that hides both. Where the kernel gives none (an
  ordinary user inside a chroot), it does without, provided that /run/pcscd exists: it needs the
  folder but, as an ordinary user, can write nothing there.
"""

import functools
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

PCSCD = "/usr/sbin/pcscd"
DRIVER = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
RUN = Path("/run/pcscd")

# Two ports each: the driver has two slots. Below the kernel's ephemeral ports (32768 and up), so
# that nobody gets one by chance.
PORTS = range(20_000, 32_000, 2)

HIDE = (
    "mount -t tmpfs none /run && mkdir /run/pcscd"
    " && { [ ! -d /dev/bus/usb ] || mount -t tmpfs none /dev/bus/usb; } && "
)
# Socket activation: descriptor 3, and the pid of who is to take it.
ACTIVATE = (
    'export LISTEN_FDS=1 LISTEN_PID=$$; exec setpriv --pdeathsig TERM -- "$@" 3<&0 </dev/null'
)

STOP_SECONDS = 5.0


class Pcscd:
    """A running pcscd. `port` is where a card goes in; `environment` leads clients here.

    driver: another one in front of the virtual reader's, with what it wants of the environment.
    """

    def __init__(self, driver: tuple[str, Mapping[str, str]] = (DRIVER, {})) -> None:
        path, self._driver_environment = driver
        self._prefix = _namespace()
        self._folder = tempfile.TemporaryDirectory(prefix="pcscd-")
        self._socket_path = Path(self._folder.name, "comm")
        self.log = Path(self._folder.name, "log")
        self._claim, self.port = _claim_ports()
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        readers = Path(self._folder.name, "readers")
        readers.mkdir()
        (readers / "vpcd").write_text(
            f'FRIENDLYNAME "Virtual PCD"\nDEVICENAME /dev/null:0x{self.port:04X}\n'
            f"LIBPATH {path}\nCHANNELID 0x{self.port:04X}\n"
        )
        self._command = [PCSCD, "--foreground", "--info", "--config", str(readers), *_options()]
        self.start()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client's environment needs. OpenSC may keep copies of a card's files: here."""
        return {
            "PCSCLITE_CSOCK_NAME": str(self._socket_path),
            "XDG_CACHE_HOME": str(Path(self._folder.name, "cache")),
        }

    def start(self) -> None:
        """Start it; clients may connect at once and are served when it is ready."""
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._socket_path))
            self._listener.listen(64)
        script = (HIDE if self._prefix else "") + ACTIVATE
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, "sh", "-c", script, "sh", *self._command],
                env=os.environ | dict(self._driver_environment),
                stdin=self._listener.fileno(),
                stdout=log,
                stderr=log,
            )

    def stop(self, *, keep_socket: bool = False) -> None:
        """End it, and its socket, unless that stays as systemd keeps it through a restart."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._listener is not None and not keep_socket:
            self._listener.close()
            self._socket_path.unlink()
            self._listener = None

    @property
    def has_card(self) -> bool:
        """Whether its log says that a card is in the reader."""
        log = self._logged()
        return log.rfind("card atr") > log.rfind("card removed from")

    @property
    def saw_insertion(self) -> bool:
        """Whether its log says that a card was put in since it started.

        pcscd logs no "inserted" for a card that it finds when it starts, and counts no event. Its
        clients take the number 0 for "not known", so OpenSC would miss a quick change of that card.
        """
        return "card inserted into" in self._logged()

    def _logged(self) -> str:
        return self.log.read_text(errors="replace").lower()

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        self._claim.close()
        self._folder.cleanup()


@functools.cache
def _options() -> list[str]:
    """Return the options by which newer versions do not ask polkit, which is not there."""
    text = subprocess.run([PCSCD, "--help"], capture_output=True, text=True, check=False)
    return ["--disable-polkit"] if "--disable-polkit" in text.stdout + text.stderr else []


@functools.cache
def _namespace() -> list[str]:
    """Return the command that gives a mount namespace, or nothing; skips where neither serves."""
    prefix = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    )
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    if os.geteuid() != 0 and RUN.is_dir():
        return []
    pytest.skip(f"no user namespaces here (a chroot?) and no {RUN}: create it as root")


def _claim_ports() -> tuple[socket.socket, int]:
    """Return a pair of free ports' first, and what keeps other tests from taking it meanwhile."""
    start = time.monotonic_ns() % len(PORTS)
    for port in [*PORTS[start:], *PORTS[:start]]:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0hsmagent-test-vpcd-{port}")
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("", each))
        except OSError:
            claim.close()
            continue
        return claim, port
    raise OSError("no two free ports in a row")
