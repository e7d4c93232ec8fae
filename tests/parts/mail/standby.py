"""A home in which a verifier may stand by for hsmagent-gpgsm, and what becomes of it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.parts.mail.people import home, script
from tests.parts.until import until


@dataclass
class Place:
    """program: hsmagent-gpgsm over Alice's key. folder: its home, of a path short enough."""

    folder: Path
    program: str
    environment: dict[str, str]

    @property
    def socket(self) -> Path:
        return self.folder / "run/hsmagent/verify.sock"

    def ways(self) -> list[str]:
        """Return which way each verification went since the last call: see `run`."""
        path = self.folder / "ways"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def sign(self, data: bytes, *options: str) -> Path:
        """Sign as git does. Return the file."""
        path = self.folder / "signature"
        made = self.run("--status-fd=2", "-bsau", "alice@example.org", *options, data=data)
        path.write_bytes(made.stdout)
        return path

    def run(
        self, *arguments: str, data: bytes = b"", **more: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program."""
        return subprocess.run(
            [self.program, *arguments],
            env={**self.environment, **more},
            input=data,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def start(self, signature: Path, *before: str) -> "subprocess.Popen[bytes]":
        """Start verifying as git does, in a process group of its own; the data is to come."""
        words = [*before, self.program, "--status-fd=1", "--verify", str(signature), "-"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0
        )

    def verify(self, signature: Path, data: bytes, **more: str) -> tuple[int, bytes, bytes]:
        """Verify as git does. Return status, standard output and standard error."""
        words = "--status-fd=1", "--verify", str(signature), "-"
        done = self.run(*words, data=data, **more)
        return done.returncode, done.stdout, done.stderr

    def stand_by(self) -> int:
        """Have somebody stand by. Return the process id."""
        self.verify(Path(os.devnull), b"")
        until(self.stands_by)
        self.ways()
        return self.stands_by()

    def standing(self) -> list[int]:
        """Return every process that stands by, and those that verify for it."""
        found = {int(path.name): _named(path) for path in Path("/proc").glob("[0-9]*")}
        ours = os.fsencode(self.folder)
        return [pid for pid, (name, of) in found.items() if name == "gpgsm-standby" and ours in of]

    def stands_by(self) -> int:
        """Return the process id of who listens, or 0. It counts as a request; that is over then."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return 0
            probe.shutdown(socket.SHUT_WR)
            probe.settimeout(1)
            with suppress(OSError):
                probe.recv(1)
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(raw[:4], sys.byteorder)


def _named(process: Path) -> tuple[str, bytes]:
    """Return a process's name and arguments; nothing of one that has ended."""
    try:
        return (process / "comm").read_text().strip(), (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "", b""


def is_there(pid: int) -> bool:
    """Whether a process runs, and is not only waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def children(pid: int) -> list[int]:
    """Return the processes that run below one."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, found) if is_there(child)]


@contextmanager
def place(kinds: Sequence[str] = ("p256",)) -> Iterator[Place]:
    """Make such a home; whoever stands by in the end is ended."""
    with tempfile.TemporaryDirectory(prefix="v", dir="/tmp") as name:
        folder = Path(name)
        (folder / "run/hsmagent").mkdir(mode=0o700, parents=True)
        (folder / "run").chmod(0o700)
        made = Place(
            folder,
            script(folder, "hsmagent-gpgsm", "gpgsm", *kinds),
            home(
                folder,
                XDG_RUNTIME_DIR=f"{folder}/run",
                HSMAGENT_TEST_WAYS=f"{folder}/ways",
                GIT_CONFIG_NOSYSTEM="1",
            ),
        )
        try:
            yield made
        finally:
            while pid := made.stands_by():
                os.kill(pid, signal.SIGKILL)
                until(lambda: not is_there(pid))
