"""What the agent costs while nobody asks it: memory, wake-ups; and how soon it is there."""

import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import load, rivals
from bench.processes import family, megabytes, switches
from bench.result import Part, Row, Scale
from bench.runs import ROOT
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.token.softhsm import MODULE, SoftHsm

# The kernel tells nobody but root about the memory of a process that forbids dumps.
_DUMPABLE = """
import hsmagent.worker.hardening, hsmagent.worker.process as process
hsmagent.worker.hardening.prctl = lambda option, value: None
process._START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import hsmagent.worker.hardening as each;"
    "each.prctl = lambda option, value: None\\n" + process._START
)
from hsmagent.cli.main import main
main()
"""
_MEMORY_MISSED = (
    "nearly all is what was imported. Of the daemon's 20.5 MB of its own, 2.8 are the "
    "interpreter's, 5.2 ours, 1.7 cryptography's and 0.7 its library's, 1.4 asyncio's, 0.7 "
    "OpenSSL's for hashlib, 0.3 dbus-next's, and the rest that of 120 modules of Python's own; "
    "of a worker's 9.5 MB, 2.8 are the interpreter's, 0.7 ours, 0.7 python-pkcs11's, 1 the "
    "module's, 1 what Python's dataclasses import. TLS and XML are not there. malloc_trim, a "
    "collection after the start, a single malloc arena, code without columns and workers forked "
    "from the daemon bring nothing. Without docstrings it would be 1.2 MB less, but no installed "
    "package has compiled files for that. Where other programs use the same libraries, less is "
    "ours."
)
_START_MISSED = (
    "nearly all of it is imports, the daemon's and meanwhile the worker's: about 155 ms and 50 ms "
    "of a processor, of which a bare interpreter takes 11. A third of the daemon's are the 800 "
    "functions that Python compiles for our 133 dataclasses. What few need is imported when they "
    "need it, and nobody searches for garbage meanwhile; workers begin before the daemon's own "
    "imports do."
)
_SETTLED = 3.0  # seconds, after which a new daemon has looked at everything
_PATIENCE = 30.0


def measure(scale: Scale) -> Part:
    """Return the rows about memory, wake-ups and the start."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        folder = Path(name)
        token = rivals.hsm(folder / "hsm")
        token.generate("bench", "EC:prime256v1", "01", "ec")
        with rivals.openssh(folder, token) as other:
            theirs = sum(map(megabytes, family(other.pid)))
        rows = (
            *_wake_ups(folder, token, scale),
            _start(folder, token, scale),
            _memory(folder, token, theirs),
        )
    return Part(rows)


# -- memory ----------------------------------------------------------------------------------


def _memory(folder: Path, token: SoftHsm, theirs: float) -> Row:
    agent = AgentProcess(folder / "memory", rivals.config(token))
    with _running(agent, _DUMPABLE):
        load.asked(agent.ssh_socket, load.request_for(agent.ssh_socket, ""))
        daemon, *workers = map(megabytes, family(agent.process.pid))
    parts = " + ".join(f"{part:.1f}" for part in (daemon, *workers))
    return Row(
        "memory of daemon and worker (PSS)",
        f"{parts} MB",
        "" if math.isnan(theirs) else f"ssh-agent and its helper {theirs:.1f} MB",
        daemon + sum(workers),
        34,
        unit=" MB",
        missed=_MEMORY_MISSED,
    )


@contextmanager
def _running(agent: AgentProcess, program: str = "") -> Iterator[None]:
    if program:
        agent._program = [agent._program[0], "-c", program]  # noqa: SLF001 (as its `dumpable` does)
    agent.start()
    try:
        yield
    finally:
        agent.stop()


# -- wake-ups --------------------------------------------------------------------------------


def _wake_ups(folder: Path, token: SoftHsm, scale: Scale) -> list[Row]:
    """Count how often the daemon and its workers wake while nobody wants anything."""
    rows = []
    for what, text in (("a software token", rivals.config(token)), ("modules discovered", "")):
        agent = AgentProcess(folder / what.partition(" ")[2].replace(" ", ""), text)
        with _running(agent):
            time.sleep(_SETTLED)
            processes = family(agent.process.pid)
            before = [switches(pid) for pid in processes]
            time.sleep(scale.idle)
            each = [
                (switches(pid) - was) * 60 / scale.idle
                for pid, was in zip(processes, before, strict=True)
            ]
        told = " + ".join(f"{count:.0f}" for count in each)
        rows.append(Row(f"wake-ups a minute, idle, {what}", told, "", sum(each), 2))
    return rows


# -- the start -------------------------------------------------------------------------------


def _start(folder: Path, token: SoftHsm, scale: Scale) -> Row:
    """Take the time from exec to the first list that holds a key."""
    agent = AgentProcess(folder / "start", rivals.config(token))
    with _running(agent):  # once, so that everything is compiled and known
        _first_key(agent.ssh_socket)
    times = []
    for _ in range(scale.processes):
        began = time.perf_counter()
        process = subprocess.Popen(
            [*PROGRAM, "daemon"],
            env=agent.environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _first_key(agent.ssh_socket)
            times.append(time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()
    median = statistics.median(times) * 1000
    told = f"{median:.0f} ms"
    return Row("exec to first listed key", told, "", median, 150, unit=" ms", missed=_START_MISSED)


def _first_key(path: Path) -> None:
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit:
        try:
            if load.blobs(path):
                return
        except (OSError, RuntimeError):
            pass
        time.sleep(0.001)
    raise RuntimeError(f"no key of {MODULE} is listed")
