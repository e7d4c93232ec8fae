"""`hsmagent pkcs11` beside a daemon, and the programs that use it through p11-kit."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.token.provider import find_module
from tests.parts.until import until

CHECKOUT = Path(__file__).parents[3]
# Lets programs do everything, unasked: what a server's key has.
FREELY = """\
[pkcs11]
enabled = true
[[key]]
match = "pkcs11:"
allow = ["ssh", "sshsig", "mail", "pkcs11-message", "pkcs11-digest", "pkcs11-decrypt"]
confirm = "never"
"""


class FaceProcess:
    """`hsmagent pkcs11` for a daemon; it listens when `start` returns."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.socket = agent.runtime / "pkcs11" / "pkcs11.sock"
        self.log = agent.home / "pkcs11.log"
        self.module = find_module("p11-kit-client.so")
        self.environment = {
            **agent.environment,
            "P11_KIT_SERVER_ADDRESS": f"unix:path={self.socket}",
            "PKCS11_MODULE_PATH": self.module,  # for OpenSSL's engine and provider
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, "pkcs11"],
                env=self.agent.environment,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._listens)

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"hsmagent pkcs11 has left: {self.logged()}")
        with socket.socket(socket.AF_UNIX) as probe:  # the file is there before anybody listens
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    def stop(self) -> int:
        """End it by SIGTERM; return its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def logged(self) -> str:
        """Return what it logged so far."""
        return self.log.read_text() if self.log.exists() else ""

    def processor_seconds(self) -> float:
        """Return what it has used of a processor so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(") ")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def run(
        self,
        command: Sequence[str],
        *,
        data: bytes = b"",
        more: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program whose environment leads here; never raises for its exit status."""
        return subprocess.run(
            command,
            env={**self.environment, **(more or {})},
            input=data,
            capture_output=True,
            timeout=60,
            check=False,
            cwd=cwd or self.agent.home,
        )

    def must(self, *command: str, data: bytes = b"", more: Mapping[str, str] | None = None) -> str:
        """Run a program that has to succeed; return what it printed, errors at the end."""
        done = self.run(command, data=data, more=more)
        printed = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{' '.join(command)}: {printed}\n{self.logged()}"
        return printed
