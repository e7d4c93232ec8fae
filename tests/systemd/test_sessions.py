"""After `hsmagent setup` each kind of session in the table of docs/desktop.md finds the agent."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.systemd import UserManager, missing, user_manager
from tests.parts.until import until

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

XSESSION = Path("/etc/X11/Xsession")
PRINT = 'echo "found=$SSH_AUTH_SOCK"'


@pytest.fixture(scope="module")
def session(program: Path) -> Iterator[UserManager]:
    """Run a session in which setup was run, once for each shell that somebody may have."""
    with user_manager([program.parent]) as manager:
        for shell in ("bash", "zsh", "fish"):
            manager.environment["SHELL"] = f"/bin/{shell}"
            manager.run("hsmagent", "setup", "--yes")
        yield manager


def ours(session: UserManager) -> str:
    return f"{session.home}/run/hsmagent/ssh.sock"


def found(session: UserManager, *command: str, **env: str) -> str:
    """Run a command as pam_systemd's session would; return the SSH_AUTH_SOCK that it printed."""
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


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program}")


SHELLS = [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "dash", "zsh", "fish")]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_login_shell(session: UserManager, shell: str) -> None:
    assert found(session, shell, "-l", "-c", PRINT) == ours(session)
    # The agent that came with an ssh login stays; an ssh login without one finds ours.
    connection = "192.0.2.1 1 192.0.2.2 22"
    assert found(session, shell, "-l", "-c", PRINT, SSH_CONNECTION=connection) == ours(session)
    forwarded = {"SSH_CONNECTION": connection, "SSH_AUTH_SOCK": "/tmp/forwarded"}
    assert found(session, shell, "-l", "-c", PRINT, **forwarded) == "/tmp/forwarded"
    # su and cron have no runtime folder: nothing is set, and nothing said.
    assert found(session, shell, "-l", "-c", PRINT, XDG_RUNTIME_DIR="") == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_wayland_session_of_gnome(session: UserManager, shell: str) -> None:
    """Its start script becomes a login shell of the user's, which starts the session."""
    where = shutil.which(shell)
    script = session.home / "gnome-session"
    script.write_text(f"#!/bin/sh\n{PRINT}\n")
    script.chmod(0o755)
    assert found(session, "bash", "-c", f"exec -l '{where}' -c 'exec {script} -l '") == ours(
        session
    )


@pytest.mark.skipif(not XSESSION.exists(), reason="there is no Xsession")
@pytest.mark.parametrize("manager", ["reads no profile", "reads ~/.profile"])
def test_an_x_session_of_debian(session: UserManager, manager: str) -> None:
    """It would start an ssh-agent of its own."""
    assert "use-ssh-agent" in Path("/etc/X11/Xsession.options").read_text().splitlines()
    told = session.home / "told"
    told.unlink(missing_ok=True)
    program = session.home / "x-program"
    program.write_text(f'#!/bin/sh\n{{ {PRINT}; echo "pid=$SSH_AGENT_PID"; }} > "{told}"\n')
    program.chmod(0o755)
    start = str(XSESSION) if "no" in manager else f". ~/.profile; exec {XSESSION}"
    shell = ["sh", "-c", f'{start} "$0"', str(program)]
    bus = f"unix:path={session.home}/run/bus"
    env = session.environment | {"DISPLAY": "", "DBUS_SESSION_BUS_ADDRESS": bus}
    env.pop("SSH_AUTH_SOCK", None)
    done = subprocess.run(shell, env=env, capture_output=True, text=True, check=False, timeout=60)
    errors = session.home / ".xsession-errors"
    assert told.exists(), done.stderr + (errors.read_text() if errors.exists() else "")
    assert told.read_text() == f"found={ours(session)}\npid=\n"


def test_a_service_of_the_user_manager(session: UserManager) -> None:
    done = session.run("systemd-run", "--user", "--pipe", "--wait", "--quiet", "sh", "-c", PRINT)
    assert done.stdout == f"found={ours(session)}\n"


def test_a_program_that_the_bus_starts(session: UserManager) -> None:
    """In the very session in which setup was run: a bus that was there before is told."""
    told = session.home / "bus-told"
    services = session.home / ".local/share/dbus-1/services"
    program = session.home / "bus-program"
    program.write_text(f'#!/bin/sh\n{PRINT} > "{told}.new"; mv "{told}.new" "{told}"\n')
    program.chmod(0o755)
    (services / "org.example.Printer.service").write_text(
        f"[D-BUS Service]\nName=org.example.Printer\nExec={program}\n"
    )
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    session.run("busctl", "--user", "call", *bus, "ReloadConfig")
    start = ("StartServiceByName", "su", "org.example.Printer", "0")
    session.run("busctl", "--user", "call", *bus, *start, check=False)  # it takes no name
    until(told.exists)
    assert told.read_text() == f"found={ours(session)}\n"


@needs("tmux")
def test_tmux_outlives_the_session(session: UserManager) -> None:
    """The socket's place is the same in the next session."""
    server = ("tmux", "-S", str(session.home / "tmux"))
    told = session.home / "tmux-told"
    environment = session.environment | {"SSH_AUTH_SOCK": ours(session), "SHELL": "/bin/sh"}
    subprocess.run([*server, "new-session", "-d", "cat"], env=environment, check=True, timeout=60)
    try:
        session.systemctl("stop", "hsmagent-ssh.socket")
        assert not os.path.exists(ours(session))  # noqa: PTH110 - a socket that is gone
        session.systemctl("start", "hsmagent-ssh.socket")
        listed = f"ssh-add -l; echo $? > {told}.new; mv {told}.new {told}"
        subprocess.run([*server, "new-window", listed], env={}, check=True, timeout=60)
        until(told.exists)
        assert told.read_text().strip() in ("0", "1")  # keys, or none; 2 is no agent
    finally:
        subprocess.run([*server, "kill-server"], check=False)
