"""A worker's process: what it runs, and how it is spawned, ahead of its time where that saves time.

The daemon takes longer to import itself than a worker to load its module, so `hsmagent daemon`
spawns the workers first, with `ahead`. `spawn` then returns a worker that has begun already.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import hsmagent
from hsmagent.model import ModuleSpec

# The interpreter is isolated (-I), so it is told where this very package lies.
_PACKAGE_ROOT = str(Path(hsmagent.__file__).parent.parent)
_START = """
import sys, importlib
sys.path.insert(0, sys.argv[1])
importlib.import_module(sys.argv[2]).main()
"""

# Variables that the linker obeys, and those by which systemd speaks to us alone.
_KEPT_FROM_MODULES = ("LD_", "LISTEN_", "NOTIFY_SOCKET")


def worker_environment(extra: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return a module's environment: ours without _KEPT_FROM_MODULES, and the configuration's."""
    ours = os.environ.items()
    kept = {name: value for name, value in ours if not name.startswith(_KEPT_FROM_MODULES)}
    return kept | dict(extra)


@dataclass(frozen=True, slots=True)
class Program:
    """What a worker runs.

    main: the module whose `main()` never returns; it finds the socket's descriptor, our process id
    and `arguments` at the end of sys.argv. name: for a person, as in "the module /usr/lib/x.so".
    env: added to its environment.
    """

    main: str
    name: str
    arguments: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def token_worker(spec: ModuleSpec) -> Program:
    """Return the program that holds one PKCS#11 module for the daemon."""
    return Program(
        main="hsmagent.worker.main",
        name=f"the module {spec.path}",
        arguments=(spec.path, spec.parameters),
        env=spec.env,
    )


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker's process, and our end of the socket to it."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


_ahead: list[tuple[Program, Spawned]] = []


def spawn(program: Program) -> Spawned:
    """Spawn a worker, or return one that was spawned ahead."""
    for entry in _ahead:
        if entry[0] == program:
            _ahead.remove(entry)
            return entry[1]
    return _spawn(program)


def ahead(modules: Iterable[ModuleSpec]) -> None:
    """Spawn the workers of these modules: the daemon will soon ask for them."""
    for spec in modules:
        if not spec.exclusive:  # `token.exclusive` has to make its environment first
            program = token_worker(spec)
            _ahead.extend((program, _spawn(program)) for _ in range(max(1, spec.workers)))


def end_unwanted() -> None:
    """End the workers that were spawned ahead and that nobody has asked for."""
    while _ahead:
        _, spawned = _ahead.pop()
        spawned.socket.close()
        spawned.process.kill()
        spawned.process.wait()
        if spawned.process.stderr is not None:
            spawned.process.stderr.close()


def _spawn(program: Program) -> Spawned:
    ours, theirs = socket.socketpair()
    ends = (str(theirs.fileno()), str(os.getpid()))
    arguments = (_PACKAGE_ROOT, program.main, *ends, *program.arguments)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            env=worker_environment(program.env),
            start_new_session=True,  # a Ctrl-C at the daemon's terminal is not for the module
        )
    return Spawned(process, ours)
