"""What the daemon and its workers do to themselves before they touch a secret."""

import ctypes
import resource

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """No core file, no ptrace by the same user, no reading of our /proc/PID/mem."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl option {option} failed")
