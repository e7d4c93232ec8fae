"""Which agent other programs find: those of a new login shell, of the user manager and of the bus.

The shell in which the doctor runs is one of many, and a desktop starts most programs without a
shell. So the login shell and the bus are each made to start a small program, which tells.
"""

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hsmagent.bus import Bus, BusError
from hsmagent.doctor.finding import COMMAND_TIMEOUT, Finding, State, Surroundings, output_of
from hsmagent.setup.home import Home
from hsmagent.setup.session import others

VARIABLE = "SSH_AUTH_SOCK"
TELL_ALL = "dbus-update-activation-environment --systemd {}={}"
SET_UP = "hsmagent setup, and log in anew"
# What setup has written looks for the socket.
STARTED_BEFORE = "have the agent started before it; `hsmagent setup` did the rest"

# What a session of pam_systemd has set before its first shell. SSH_AUTH_SOCK is for the shell to
# set, or for what started the shell.
_GIVEN = (
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "LANG",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "ZDOTDIR",
)
_MARK = "SSH_AUTH_SOCK is: "
_PRINT = f'printf "%s\\n" "{_MARK}${VARIABLE}"'

_SERVICE = "[D-BUS Service]\nName={}\nExec={}\n"
# The file appears when it is complete, so that whoever sees it may read it.
_TELL = f'printf %s "${VARIABLE}" >"$0.new" && mv "$0.new" "$0"'


async def login_shell(where: Surroundings) -> Finding | None:
    """Say which agent a new login shell finds; None for a shell of a kind that tells us nothing."""
    home = Home.of(where.env)
    shell = shutil.which(where.env.get("SHELL") or home.shell)
    if shell is None:
        return None
    env = {name: where.env[name] for name in _GIVEN if name in where.env} | {"SHELL": shell}
    printed = await output_of([shell, "-l", "-c", _PRINT], env)
    lines = [line for line in (printed or "").splitlines() if line.startswith(_MARK)]
    if not lines:
        return None
    named = lines[-1].removeprefix(_MARK)
    # The remedy names the file and line that set another agent, if there is one.
    remedy = next(others(home), SET_UP) if named else SET_UP
    if not named and not where.ssh_socket.exists() and home.profile.exists():
        remedy = STARTED_BEFORE
    return _finding(where, "login-shell", "a new login shell finds", named, remedy)


def manager(where: Surroundings, environment: Mapping[str, str]) -> Finding:
    """Say which agent the programs find that the user manager starts, in its environment."""
    found = "programs that the user manager starts find"
    return _finding(where, "session", found, environment.get(VARIABLE, ""), _tell_all(where))


async def bus(where: Surroundings, bus: Bus) -> Finding | None:
    """Say which agent a program finds that the bus starts; None where it starts none for us."""
    with _service(where) as (name, told):
        if not name:
            return None
        calls = asyncio.create_task(_start(bus, name))
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                while not told.exists():  # noqa: ASYNC110 - the writer is no task of ours
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return None
        finally:
            calls.cancel()
            await asyncio.wait([calls])
        named = told.read_text(errors="replace")
    return _finding(where, "bus", "programs that the bus starts find", named, _tell_all(where))


async def _start(bus: Bus, name: str) -> None:
    """Have the bus start our program. It takes no name on the bus, so the call fails; no matter."""
    with suppress(BusError):
        await bus.call_bus("ReloadConfig", "", [], "")
        await bus.call_bus("StartServiceByName", "su", [name, 0], "u")


@contextmanager
def _service(where: Surroundings) -> Iterator[tuple[str, Path]]:
    """Give the name of a service that writes down its environment, and the file it writes to.

    Its description lies where the bus looks for services that end with the session. The name is ""
    where that folder is missing.
    """
    runtime = Path(where.env.get("XDG_RUNTIME_DIR", ""))
    services = runtime / "dbus-1/services"
    if not runtime.is_absolute() or not os.access(services, os.W_OK):
        yield "", runtime
        return
    name = f"org.hsmagent.Doctor{os.getpid()}"
    file = services / f"{name}.service"
    with tempfile.TemporaryDirectory(prefix="hsmagent-doctor-", dir=runtime) as folder:
        told = Path(folder, "told")
        try:
            file.write_text(_SERVICE.format(name, shlex.join(("/bin/sh", "-c", _TELL, str(told)))))
            yield name, told
        finally:
            file.unlink(missing_ok=True)


def _tell_all(where: Surroundings) -> str:
    return TELL_ALL.format(VARIABLE, where.ssh_socket)


def _finding(where: Surroundings, check: str, who: str, named: str, remedy: str) -> Finding:
    if named and Path(named) == where.ssh_socket:
        return Finding(check, State.OK, f"{who} this agent")
    sentence = f"{who} another agent, {named}" if named else f"{who} no agent"
    return Finding(check, State.WARN, sentence, remedy)
