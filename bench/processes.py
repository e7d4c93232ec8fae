"""What /proc tells of a running process and of those below it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def family(pid: int) -> list[int]:
    """Return a process and those below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found


def processor_microseconds(pid: int) -> float:
    """Return what a process and those below it have used of a processor so far."""
    return (
        sum(
            int(task.read_text().split()[0])
            for each in family(pid)
            for task in Path(f"/proc/{each}/task").glob("*/schedstat")
        )
        / 1000
    )


def megabytes(pid: int) -> float:
    """Return a process's share of memory (PSS); NaN when the kernel does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        return float("nan")
    line = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024 / 1e6


def switches(pid: int) -> int:
    """Return how often the threads of a process gave up their processor of themselves."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    )


@contextmanager
def forked(work: Callable[..., object], *arguments: object) -> Iterator[int]:
    """Run `work` in a process of its own, and end it."""
    child = os.fork()
    if not child:
        try:
            work(*arguments)
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
