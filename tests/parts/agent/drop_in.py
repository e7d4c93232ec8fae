"""The program `hsmagent-ssh-agent` of this checkout, as a file that can be run, or broken."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.parts.until import until

ROOT = Path(__file__).parents[3]

# Every process that serves writes its pid down, so that a test that fails leaves none behind.
_PROGRAM = """\
#!{python} -P
import os, sys
sys.path.insert(0, {root!r})
def note():
    with open({pids!r}, "a") as file:
        print(os.getpid(), file=file)
os.register_at_fork(after_in_child=note)
from hsmagent.cli import ssh_agent
{fault}
ssh_agent.main()
"""


class DropIn:
    """The program at `path`. `fault` is Python that breaks the agent before it starts."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        self.path = folder / "hsmagent-ssh-agent"
        self._pids = folder / "agents"
        self.path.write_text(
            _PROGRAM.format(
                python=sys.executable, root=str(ROOT), pids=str(self._pids), fault=fault
            )
        )
        self.path.chmod(0o755)

    def end(self, seconds: float = 0.0) -> list[int]:
        """End the agents that still run after so many seconds; return their pids."""
        with suppress(TimeoutError):
            until(lambda: not self._running(), seconds)
        left = self._running()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return left

    def _running(self) -> list[int]:
        pids = self._pids.read_text().split() if self._pids.exists() else []
        return [pid for pid in map(int, pids) if _is_ours(pid, self.path)]


def _is_ours(pid: int, path: Path) -> bool:
    try:
        return str(path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
