"""Which SSH_AUTH_SOCK each kind of session finds, once it is started for real."""

import subprocess
from pathlib import Path

from tests.parts.desktop.systemd import UserManager
from tests.parts.until import until

XSESSION = Path("/etc/X11/Xsession")
PRINT = 'echo "found=$SSH_AUTH_SOCK"'


def ours(session: UserManager) -> str:
    """Return the socket that each is to find."""
    return f"{session.home}/run/hsmagent/ssh.sock"


def found(session: UserManager, *command: str, **env: str) -> str:
    """Run a command with what pam_systemd's session has; return the SSH_AUTH_SOCK it printed.

    env: more of the environment; "" takes a variable away.
    """
    environment = {
        "HOME": str(session.home),
        "PATH": session.environment["PATH"],
        "XDG_RUNTIME_DIR": str(session.home / "run"),
        "LANG": "C.UTF-8",
        "USER": session.environment["USER"],
        **env,
    }
    done = subprocess.run(
        command,
        env={name: value for name, value in environment.items() if value},
        cwd=session.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("found=")]
    assert len(lines) == 1, done.stdout + done.stderr
    return lines[0].removeprefix("found=")


def printer(session: UserManager, name: str) -> tuple[Path, Path]:
    """Write a program that tells what it finds; return it, and the file in which it tells."""
    told, program = session.home / f"{name}-told", session.home / name
    told.unlink(missing_ok=True)
    tell = f'{{ {PRINT}; echo "pid=$SSH_AGENT_PID"; }} > "{told}.new"; mv "{told}.new" "{told}"'
    program.write_text(f"#!/bin/sh\n{tell}\n")
    program.chmod(0o755)
    return program, told


def x_session(session: UserManager, before: str = "") -> str:
    """Start Debian's Xsession with a program; return what that was told. before: in shell."""
    program, told = printer(session, "x-program")
    bus = f"unix:path={session.home}/run/bus"
    env = session.environment | {"DISPLAY": "", "DBUS_SESSION_BUS_ADDRESS": bus}
    env.pop("SSH_AUTH_SOCK", None)
    done = subprocess.run(
        ["sh", "-c", f'{before}exec {XSESSION} "$0"', str(program)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    errors = session.home / ".xsession-errors"
    said = errors.read_text() if errors.exists() else ""
    errors.unlink(missing_ok=True)
    assert told.exists(), done.stderr + said
    return told.read_text()


def bus_program(session: UserManager) -> str:
    """Have the bus start a program; return what that was told."""
    program, told = printer(session, "bus-program")
    service = session.home / "run/dbus-1/services/org.example.Printer.service"
    service.write_text(f"[D-BUS Service]\nName=org.example.Printer\nExec={program}\n")
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    session.run("busctl", "--user", "call", *bus, "ReloadConfig")
    start = ("StartServiceByName", "su", "org.example.Printer", "0")
    session.run("busctl", "--user", "call", *bus, *start, check=False)  # it takes no name
    until(told.exists)
    service.unlink()
    return told.read_text()
