"""A real `systemd --user` of a test's own, as an ordinary user in namespaces.

It needs a control group (v2) that we may divide, and leave to make namespaces; where there is
none, `missing` says so.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.parts.until import until

SYSTEMD = "/usr/lib/systemd/systemd"

# As root of a user namespace: what the manager wants to see. Then back to the user's own id, so
# that it has no more rights than on a real machine. (No pid namespace: in one, the manager would
# take itself for the system's, and could not serve clients from outside.)
_INSIDE = """
set -eu
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/systemd/system
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec unshare --user --map-user="$1" --map-group="$2" -- "$3" --user --log-target=console
"""


def control_group() -> Path | None:
    """Return the folder of the control group that we are in, if we may divide it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    for root in roots:
        for group in own:
            folder = root / group
            if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
                return folder
    return None


def missing() -> str:
    """Say what a manager lacks here, or ""."""
    if not Path(SYSTEMD).exists():
        return "systemd is not installed"
    if control_group() is None:
        return "there is no control group that we may divide"
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--cgroup"]
    tried = subprocess.run([*namespaces, "true"], check=False, capture_output=True)
    return "" if tried.returncode == 0 else "namespaces are forbidden here"


@dataclass(frozen=True, slots=True)
class UserManager:
    """A running manager; `home` is the user's."""

    home: Path
    environment: dict[str, str]

    def run(
        self, *command: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the session."""
        done = subprocess.run(
            command,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}{self.log()}")
        return done

    def systemctl(self, *arguments: str) -> str:
        """Run `systemctl --user`."""
        return self.run("systemctl", "--user", *arguments).stdout

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def log(self) -> str:
        """Return what the manager and its services said."""
        return (self.home / "log").read_text(errors="replace")


@contextmanager
def user_manager(
    path: Sequence[Path] = (), prepare: Callable[[Path], object] = lambda _home: None
) -> Iterator[UserManager]:
    """Start a manager, in a home of its own; end it and all that it started.

    path: folders in front of the services' PATH. prepare: what is done to the home before.
    """
    parent = control_group()
    assert parent is not None
    home = Path(tempfile.mkdtemp(prefix="sd"))  # short, for the sockets in it
    (home / "run").mkdir(mode=0o700)
    prepare(home)
    group = parent / home.name
    group.mkdir()
    environment = {
        "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_DATA_HOME": str(home / ".local/share"),  # the bus looks in passwd for the home
        "USER": os.environ.get("USER", "user"),
    }
    child = _start(home, group, environment)
    try:
        manager = UserManager(home, environment)
        until(lambda: child.poll() is not None or (home / "run/systemd/private").exists())
        until(lambda: _is_up(manager))
        yield manager
    finally:
        (group / "cgroup.kill").write_text("1")  # itself, and all that it started
        child.wait()
        _remove(group)
        shutil.rmtree(home, ignore_errors=True)


def _start(home: Path, group: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--cgroup"]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [
                *("sh", "-c", enter, str(group)),
                *(*namespaces, "--"),
                *("sh", "-c", _INSIDE, "inside", str(os.getuid()), str(os.getgid()), SYSTEMD),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _is_up(manager: UserManager) -> bool:
    # Not is-system-running: out here, there may be no systemd that the machine was started with.
    show = ["systemctl", "--user", "show", "--value", "--property=SystemState"]
    return manager.run(*show, check=False).stdout.strip() in ("running", "degraded")


def _remove(group: Path) -> None:
    def gone() -> bool:
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not group.exists()

    with suppress(TimeoutError):  # a group that is left over does no harm
        until(gone, 5)
