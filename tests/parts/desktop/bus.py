"""A D-Bus daemon of a test's own, that can be stopped, restarted and frozen."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <servicedir>{services}</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@dataclass
class PrivateBus:
    """A bus in `folder`, whose path is short; `environment` is what it starts services with."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """The same over restarts."""
        return f"unix:path={self.folder}/bus"

    def add_service(self, name: str, command: str) -> None:
        """Let the bus start `command` when somebody calls `name`. Read at the bus's start."""
        services = self.folder / "services"
        services.mkdir(exist_ok=True)
        (services / f"{name}.service").write_text(f"[D-BUS Service]\nName={name}\nExec={command}\n")

    def start(self) -> None:
        """Start, and return once it listens."""
        (self.folder / "services").mkdir(exist_ok=True)
        (self.folder / "bus").unlink(missing_ok=True)
        config = self.folder / "bus.conf"
        config.write_text(
            _CONFIG.format(socket=self.folder / "bus", services=self.folder / "services")
        )
        self.process = subprocess.Popen(
            [
                *("dbus-daemon", f"--config-file={config}"),
                *("--nofork", "--nopidfile", "--nosyslog", "--print-address=1"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)} | dict(self.environment),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("unix:")

    def stop(self) -> None:
        """Kill it, as a crash would; what it started ends with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it hang for the length of the block."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def private_bus(environment: Mapping[str, str] | None = None) -> Iterator[PrivateBus]:
    """Make the folder for a bus; the caller starts it, since services come first."""
    folder = Path(tempfile.mkdtemp(prefix="bus"))  # a socket's path has 107 bytes at most
    bus = PrivateBus(folder, environment or {})
    try:
        yield bus
    finally:
        bus.stop()
        shutil.rmtree(folder, ignore_errors=True)
