"""The session bus, the prompters that can ask for a PIN, and the systemd units."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from hsmagent.bus import Bus, BusError, session_address
from hsmagent.doctor import sessions
from hsmagent.doctor.finding import Finding, State, Surroundings, output_of
from hsmagent.errors import Unavailable
from hsmagent.prompt.environment import has_display
from hsmagent.prompt.pinentry import find_programs
from hsmagent.prompt.system import NAME as PROMPTER

BUS_TIMEOUT = 5.0
SYSTEM = "system-prompter"
DISPLAYS = ("WAYLAND_DISPLAY", "DISPLAY")
IMPORT = "dbus-update-activation-environment --systemd DISPLAY WAYLAND_DISPLAY XAUTHORITY"
UNITS = (
    "hsmagent.service",
    "hsmagent-ssh.socket",
    "hsmagent-control.socket",
    "hsmagent-mail.socket",
)
INSTALL = "run `hsmagent setup`"


async def prompters(where: Surroundings, named: str = "") -> list[Finding]:
    """Say which prompters can ask for a PIN. named: the pinentry that the configuration names."""
    found = []
    async with _joined(where) as bus:
        if bus is None:
            remedy = "in a desktop session, set DBUS_SESSION_BUS_ADDRESS; over ssh this is usual"
            found.append(Finding("bus", State.WARN, "there is no session bus", remedy))
        else:
            found.append(Finding("bus", State.OK, "the session bus answers"))
            found.append(await _system_prompter(bus, where))
            started = await sessions.bus(where, bus)
            found += [started] if started is not None else []
    pinentry = _pinentry(where, named)
    shown = any(each.check == SYSTEM and each.state is State.OK for each in found)
    if not shown or pinentry.state is State.OK:
        found.append(pinentry)  # where the desktop has a dialog, no pinentry is missed
    if not shown and pinentry.state is not State.OK:
        sentence = "nothing can ask for a PIN in a window"
        remedy = "install gcr or a pinentry; or use `hsmagent unlock`, or `hsmagent ask-here`"
        found.append(Finding("prompter", State.WARN, sentence, remedy))
    return found


async def _system_prompter(bus: Bus, where: Surroundings) -> Finding:
    check = SYSTEM
    try:
        if (await bus.call_bus("NameHasOwner", "s", [PROMPTER], "b"))[0]:
            return Finding(check, State.OK, "the desktop's own PIN dialog is there")
        names = (await bus.call_bus("ListActivatableNames", "", [], "as"))[0]
    except BusError as error:
        return Finding(check, State.WARN, f"the bus fails: {error}", "log in anew")
    if PROMPTER not in names:
        remedy = "install gcr (gcr-prompter), or use pinentry"
        return Finding(check, State.WARN, "the desktop has no PIN dialog of its own", remedy)
    # The bus starts it with the user manager's environment, or with its own.
    environment = await _manager_environment(where)
    if not environment:
        return Finding(check, State.OK, "the bus can start gcr-prompter")
    if not environment.keys() & set(DISPLAYS):
        sentence = "gcr-prompter would find no display: its environment lacks DISPLAY"
        return Finding(check, State.WARN, sentence, IMPORT)
    return Finding(check, State.OK, "the bus can start gcr-prompter, which finds the display")


def _pinentry(where: Surroundings, named: str) -> Finding:
    try:
        program = find_programs(where.env, named)[0]
    except Unavailable as error:
        remedy = "install one, such as pinentry-gnome3 or pinentry-qt"
        if named:
            remedy = "install it, or name another as [prompt] pinentry in the configuration"
        elif not has_display(where.env):
            remedy = "in a desktop session, set DISPLAY or WAYLAND_DISPLAY; over ssh this is usual"
        return Finding("pinentry", State.WARN, str(error), remedy)
    return Finding("pinentry", State.OK, f"{program} can ask for a PIN")


@asynccontextmanager
async def _joined(where: Surroundings) -> AsyncIterator[Bus | None]:
    bus = Bus(lambda: session_address(where.env))
    joined = asyncio.Event()
    bus.listen(joined.set)
    task = asyncio.create_task(bus.run())
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(BUS_TIMEOUT if session_address(where.env) else 0.0):
                await joined.wait()
        yield bus if bus.connected else None
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def systemd(where: Surroundings) -> list[Finding]:
    """Say how the units are, and which agent the programs find that the manager starts."""
    if shutil.which("systemctl", path=where.env.get("PATH")) is None:
        return []
    printed = await output_of(
        ["systemctl", "--user", "show", *UNITS, "--property=Id,LoadState,ActiveState"], where.env
    )
    if printed is None:
        remedy = "start `hsmagent daemon` from your session's start-up"
        sentence = "systemd's user manager does not answer"
        return [Finding("systemd", State.WARN, sentence, remedy)]
    units = _units(dict(map(_unit, printed.strip().split("\n\n"))))
    if units.state is not State.OK:
        return [units]
    return [units, sessions.manager(where, await _manager_environment(where))]


def _units(units: Mapping[str, tuple[str, str]]) -> Finding:
    """Say how the units are: name → (LoadState, ActiveState)."""
    check = "systemd"
    missing = [name for name in UNITS if units.get(name, ("", ""))[0] != "loaded"]
    if missing:
        return Finding(check, State.WARN, f"not installed: {', '.join(missing)}", INSTALL)
    service, *sockets = (units[name][1] for name in UNITS)
    if service == "failed":
        remedy = "see journalctl --user --unit hsmagent, then systemctl --user restart hsmagent"
        return Finding(check, State.BAD, "hsmagent.service has failed", remedy)
    if any(state != "active" for state in sockets):
        remedy = f"systemctl --user enable --now {' '.join(UNITS[1:])}"
        return Finding(check, State.BAD, "the sockets do not listen", remedy)
    return Finding(check, State.OK, "the units are installed, the sockets listen")


async def _manager_environment(where: Surroundings) -> dict[str, str]:
    """Return what systemd's user manager gives to the programs that it starts."""
    printed = await output_of(["systemctl", "--user", "show-environment"], where.env)
    lines = (printed or "").splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def _unit(block: str) -> tuple[str, tuple[str, str]]:
    values = dict(line.partition("=")[::2] for line in block.splitlines())
    return values.get("Id", ""), (values.get("LoadState", ""), values.get("ActiveState", ""))
