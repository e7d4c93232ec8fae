"""Whole processes, run in turn, and what each of them took as the kernel accounts for it."""

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import processor_microseconds

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Program:
    """A command, the file that is its standard input, and what is added to the environment.

    servers: processes that run all the time, and of whose work meanwhile some is done for it.
    """

    command: Sequence[str]
    stdin: Path = Path(os.devnull)
    environment: Mapping[str, str] | None = None
    servers: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds: from start to end, and on a processor, with what it ran and its servers did."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two programs that took turns, ours first."""

    ours: Sequence[Cost]
    theirs: Sequence[Cost]

    @property
    def cpu(self) -> tuple[float, float, float]:
        """The medians of both in seconds of a processor, and the median of the ratios."""
        return _medians([(a.cpu, b.cpu) for a, b in zip(self.ours, self.theirs, strict=True)])

    @property
    def wall(self) -> tuple[float, float, float]:
        """The same in seconds by the clock."""
        return _medians([(a.wall, b.wall) for a, b in zip(self.ours, self.theirs, strict=True)])


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    return ours, theirs, statistics.median(a / b for a, b in pairs)


def cost(program: Program, environment: Mapping[str, str]) -> Cost:
    """Run a program to its end. RuntimeError when it fails."""
    env = {**environment, **(program.environment or {})}
    before = _used(program.servers)
    with program.stdin.open("rb") as stdin:
        started = time.perf_counter()
        process = subprocess.Popen(
            program.command,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd=ROOT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(program.command)} left with {process.returncode}")
    return Cost(wall, used.ru_utime + used.ru_stime + _used(program.servers) - before)


def _used(pids: Sequence[int]) -> float:
    return sum(map(processor_microseconds, pids)) / 1e6


def in_turn(ours: Program, theirs: Program, environment: Mapping[str, str], rounds: int) -> Pair:
    """Run both `rounds` times, one after the other, once before unmeasured."""
    costs = [(cost(ours, environment), cost(theirs, environment)) for _ in range(rounds + 1)]
    first, second = zip(*costs[1:], strict=True)
    return Pair(first, second)
