"""OpenSSH's own regression tests, from Debian's openssh-tests, against an agent of our choice."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

INSTALLED = Path("/usr/lib/openssh/regress")
# The key type that the agent does not take: what is left of DSA.
_LEFT_OUT = "grep -v dss"
_KEY_TYPES = {
    "test-exec.sh": (r"^(SSH_(?:HOST)?KEY_?TYPES=`.*)`$", rf"\1 | {_LEFT_OUT}`"),
    "hostkey-agent.sh": (r"(\$?\{?SSH\}?|ssh) -Q key-sig \|", rf"\g<0> {_LEFT_OUT} |"),
}
_NO_PAM = ("test-exec.sh", r"^(\s*UsePAM\s+)yes$", r"\1no")


class Suite:
    """A copy of the suite in `folder`, whose path must be short: sockets live below it."""

    def __init__(self, folder: Path, agent: Path) -> None:
        self.folder = folder / "regress"
        self._agent = agent
        ignored = shutil.ignore_patterns("unittests", "fuzz-harness")
        shutil.copytree(INSTALLED, self.folder, ignore=ignored)
        for name, (pattern, replacement) in _KEY_TYPES.items():
            self._edit(name, pattern, replacement)
        self._edit(*_NO_PAM)
        # Debian's own driver knows the variables; only its copying is ours already.
        driver = (INSTALLED / "run-tests").read_text()
        copying = r"^cp -a /usr/lib/openssh/regress .*$"
        driver, count = re.subn(copying, ":", driver, flags=re.MULTILINE)
        assert count == 1, "the suite's driver has changed"
        (self.folder / "run-tests").write_text(driver)

    def _edit(self, name: str, pattern: str, replacement: str) -> None:
        path = self.folder / name
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        assert count, f"{name} has changed: nothing matches {pattern}"
        path.write_text(text)

    def run(self, test: str, seconds: float) -> str:
        """Run one test; return its output. Raises AssertionError when it fails or takes longer."""
        command = ["sh", str(self.folder / "run-tests"), str(self.folder.parent), "t-exec"]
        variables = [
            *(f"LTESTS={test}", "SUDO=", "TEST_SSH_FAIL_FATAL=yes"),
            *("TEST_SSH_OPENSSL=openssl", f"TEST_SSH_SSHAGENT={self._agent}"),
        ]
        # A file and no pipe: an agent that keeps its stdout open would hold the pipe, too.
        log = self.folder.parent / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *variables],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"},
            )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{test} does not end") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = log.read_text(errors="replace")
        assert status == 0, said[-4000:]
        assert re.search(r"^ok ", said, re.MULTILINE), f"{test} was skipped: {said}"
        return said

    def trace(self) -> str:
        """Return what the test noted last of its progress."""
        return (self.folder / "regress.log").read_text(errors="replace")
