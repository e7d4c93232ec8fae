"""What the daemon and its workers do to themselves before they touch a secret."""

import ctypes
import resource

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Forbid core files, ptrace by the same user, and the reading of our /proc/PID/mem."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl option {option} failed")
