"""A private OpenSSH server on loopback, that lets in whoever runs the tests."""

import os
import pwd
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.parts.until import until

SSHD = "/usr/sbin/sshd"
STOP_SECONDS = 10.0


class Sshd:
    """A running sshd. `authorized` are public key lines; `options` are sshd_config lines.

    `ssh_options` are what a client needs to reach it and nothing else: `ssh *ssh_options HOST`.
    """

    def __init__(
        self, folder: Path, authorized: Sequence[str], options: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.log = folder / "sshd.log"
        self.host_key = folder / "host_key"
        # Kept, bound and not listening, so that nobody else is given the port; sshd, which sets
        # SO_REUSEADDR too, may listen there.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._folder = folder
        if not self.host_key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.host_key)]
            subprocess.run(command, check=True)
        (folder / "authorized_keys").write_text("".join(f"{line}\n" for line in authorized))
        public = self.host_key.with_suffix(".pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {' '.join(public)}\n")
        self._write_config(options)
        self._process: subprocess.Popen[bytes] | None = None

    def _write_config(self, options: Sequence[str]) -> None:
        lines = (
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self._folder}/authorized_keys",
            f"PidFile {self._folder}/pid",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "LogLevel VERBOSE",
            *options,
        )
        (self._folder / "sshd_config").write_text("".join(f"{line}\n" for line in lines))

    @property
    def ssh_options(self) -> list[str]:
        """Options for ssh, scp and git."""
        return [
            *("-F", "none"),
            *("-p", str(self.port)),
            *("-l", self.user),
            *("-o", f"UserKnownHostsFile={self._folder}/known_hosts"),
            *("-o", "BatchMode=yes"),
            *("-o", "IdentityFile=none"),
            *("-o", "PreferredAuthentications=publickey"),
            *("-o", "ConnectTimeout=20"),
        ]

    def start(self) -> None:
        """Start it and wait until it answers."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = str(self._folder / "sshd_config")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._answers)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"sshd left: {self.log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it, and give its port back."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
            self._process = None
        self._reserved.close()
