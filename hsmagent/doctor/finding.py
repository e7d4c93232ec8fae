"""What the doctor finds, and what it looks at."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from hsmagent.config.file import default_path
from hsmagent.errors import UsageError
from hsmagent.folders import runtime_folder

COMMAND_TIMEOUT = 10.0  # seconds for a program that we ask


class State(StrEnum):
    """How the thing is that was looked at."""

    OK = "ok"
    WARN = "warn"  # works, or may do, but not as well as it could
    BAD = "bad"  # does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    check: the name of the thing. sentence: how it is. remedy: what to do about it, or "".
    """

    check: str
    state: State
    sentence: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the doctor looks. `env` is the person's; `config` the configuration file.

    no_runtime_dir: why there can be no folder of sockets, else "".
    """

    runtime_dir: Path
    config: Path
    config_named: bool = False  # by the person, and so it must be there
    no_runtime_dir: str = ""
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def ssh_socket(self) -> Path:
        """Our ssh socket."""
        return self.runtime_dir / "ssh.sock"

    def home_folder(self, variable: str, usual: str) -> str:
        """Return the folder that a variable of the person's names; `usual` below home, if none."""
        return self.env.get(variable) or f"{self.env.get('HOME', '')}/{usual}"


def surroundings(runtime_dir: str, config: str) -> Surroundings:
    """Return where to look: the usual places, where the command line names none ("")."""
    trouble = ""
    try:
        runtime_dir = runtime_folder(runtime_dir)
    except UsageError as error:
        trouble = str(error)
        runtime_dir = runtime_dir or f"/run/user/{os.getuid()}/hsmagent"
    return Surroundings(Path(runtime_dir), Path(config or default_path()), bool(config), trouble)


async def output_of(command: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Return what a program prints, or None when it is not there, fails or hangs."""
    ended = await run(command, env)
    return ended[1] if ended is not None and ended[0] == 0 else None


async def run(command: Sequence[str], env: Mapping[str, str]) -> tuple[int | None, str] | None:
    """Return a program's exit status and what it prints, or None when it is not there or hangs."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=env, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            output, _ = await child.communicate()
    except TimeoutError:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode, output.decode(errors="replace")


Status = dict[str, Any]
"""The daemon's answer to `status`, with its answer to `keys` under "listed"."""
