"""The real daemon in a process of its own, and the commands of a person who uses it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.parts.measured import MEASURED
from tests.parts.until import until

STOP_SECONDS = 20.0

PROGRAM = [sys.executable, "-m", "hsmagent"]
# The kernel shows nobody what an undumpable process has open. So whoever counts descriptors needs a
# daemon that leaves this one thing out; its workers do not.
DUMPABLE = """\
import hsmagent.worker.hardening
hsmagent.worker.hardening.prctl = lambda option, value: None
from hsmagent.cli.main import main
main()
"""

# What lets programs have unknown data signed unasked: `ssh-add -T`, and whoever signs b"data".
ANY_DATA = '[[key]]\nmatch = "pkcs11:"\nallow = ["ssh", "sshsig", "git", "unknown"]\n'


def unknown_data(size: int) -> bytes:
    """Return random data that is signed where ANY_DATA is configured: no mail, and no DER."""
    return b"\0" + os.urandom(size - 1)


class AgentProcess:
    """`hsmagent daemon` with folders of its own below `home`; ready when `start` returns.

    The environment holds what a login session would: HOME, XDG folders, PATH, and `environment`.
    dumpable: for `descriptors`.
    """

    def __init__(
        self,
        home: Path,
        config: str = "",
        environment: Mapping[str, str] | None = None,
        *,
        dumpable: bool = False,
    ) -> None:
        self.home = home
        self._program = [sys.executable, "-c", DUMPABLE] if dumpable else PROGRAM
        self.runtime = home / "run" / "hsmagent"
        self.ssh_socket = self.runtime / "ssh.sock"
        self.control_socket = self.runtime / "control.sock"
        self.mail_socket = self.runtime / "mail.sock"
        self.face_socket = self.runtime / "face.sock"
        self.config = home / "config" / "hsmagent" / "config.toml"
        self.log = home / "daemon.log"
        self.environment = {
            **MEASURED,
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(home / "run"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "SSH_AUTH_SOCK": str(self.ssh_socket),
            **(environment or {}),
        }
        (home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.configure(config)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str) -> None:
        """Write the configuration file; a running daemon is not told."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config)

    def start(self, *arguments: str) -> None:
        """Start the daemon and wait until it says READY, as systemd would."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            notify = self.home / "notify"
            notify.unlink(missing_ok=True)
            manager.bind(str(notify))
            manager.settimeout(0.1)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._program, "daemon", *arguments],
                    env={**self.environment, "NOTIFY_SOCKET": str(notify)},
                    cwd=Path(__file__).parents[3],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            until(lambda: self._said_ready(manager))

    def _said_ready(self, manager: socket.socket) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon left with {self.process.returncode}: {self.logged()}")
        try:
            return b"READY=1" in manager.recv(1000)
        except TimeoutError:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """End the daemon by SIGTERM; return its exit status."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def logged(self) -> str:
        """Return what the daemon logged so far."""
        return self.log.read_text() if self.log.exists() else ""

    def descriptors(self) -> int:
        """Return how many descriptors a daemon that is dumpable has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def processor_seconds(self) -> float:
        """Return what the daemon has used of a processor so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(") ")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    # -- what a person types -----------------------------------------------------------------

    def run(
        self, command: Sequence[str], *, stdin: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the session; never raises for its exit status."""
        return subprocess.run(
            command,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=Path(__file__).parents[3],
            check=False,
        )

    def hsmagent(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an hsmagent command."""
        return self.run([*PROGRAM, *arguments], stdin=stdin)

    def json(self, command: str) -> Any:
        """Return what `hsmagent COMMAND --json` says."""
        result = self.hsmagent(command, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def unlock(self, pin: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Give a PIN by `hsmagent unlock --stdin`."""
        return self.hsmagent("unlock", *arguments, "--stdin", stdin=pin + "\n")
