"""After `hsmagent setup` each kind of session in the table of docs/desktop.md finds the agent."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.desktop.sessions import PRINT, XSESSION, bus_program, found, ours, x_session
from tests.parts.desktop.systemd import UserManager, missing, user_manager
from tests.parts.until import until

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@pytest.fixture(scope="module")
def session(program: Path) -> Iterator[UserManager]:
    """Run a session in which setup was run, once for each shell that somebody may have."""
    with user_manager([program.parent]) as manager:
        for shell in ("bash", "zsh", "fish"):
            manager.environment["SHELL"] = f"/bin/{shell}"
            manager.run("hsmagent", "setup", "--yes")
        yield manager


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
@pytest.mark.parametrize("manager", ["", ". ~/.profile; "], ids=["lightdm", "gdm"])
def test_an_x_session_of_debian(session: UserManager, manager: str) -> None:
    """It would start an ssh-agent of its own; not each display manager reads ~/.profile."""
    assert "use-ssh-agent" in Path("/etc/X11/Xsession.options").read_text().splitlines()
    assert x_session(session, manager) == f"found={ours(session)}\npid=\n"


def test_a_service_of_the_user_manager(session: UserManager) -> None:
    done = session.run("systemd-run", "--user", "--pipe", "--wait", "--quiet", "sh", "-c", PRINT)
    assert done.stdout == f"found={ours(session)}\n"


def test_a_program_that_the_bus_starts(session: UserManager) -> None:
    """In the very session in which setup was run: a bus that was there before is told."""
    assert bus_program(session).splitlines()[0] == f"found={ours(session)}"


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


SEEN = {
    "login-shell": "a new login shell finds",
    "session": "programs that the user manager starts find",
    "bus": "programs that the bus starts find",
}


def doctor(session: UserManager, **env: str) -> dict[str, tuple[str, str]]:
    """Return what the doctor says of the ways to the agent: sentence and remedy, by check."""
    session.environment.update(env)
    bus = f"unix:path={session.home}/run/bus"
    command = ("env", f"DBUS_SESSION_BUS_ADDRESS={bus}", "hsmagent", "doctor", "--json")
    found = json.loads(session.run(*command, check=False).stdout)
    return {
        check: (each["sentence"].removeprefix(said), each["remedy"])
        for each in found
        for check, said in SEEN.items()
        if each["sentence"].startswith(said)
    }


def test_the_doctor_sees_what_each_finds(session: UserManager) -> None:
    assert doctor(session, SHELL="/bin/bash") == dict.fromkeys(SEEN, (" this agent", ""))


def test_the_doctor_sees_who_is_in_the_way_and_what_it_says_to_do_helps(program: Path) -> None:
    with user_manager([program.parent]) as session:
        session.environment["SHELL"] = "/bin/bash"
        assert doctor(session)["login-shell"] == (" no agent", "hsmagent setup, and log in anew")
        session.run("hsmagent", "setup", "--yes")
        profile = session.home / ".profile"
        profile.write_text(profile.read_text() + "export SSH_AUTH_SOCK=/tmp/other\n")
        session.run("dbus-update-activation-environment", "--systemd", "SSH_AUTH_SOCK=/tmp/other")
        found = doctor(session)
        assert {said for said, _ in found.values()} == {" another agent, /tmp/other"}
        assert found["login-shell"][1].startswith("~/.profile, line ")
        for check in ("session", "bus"):
            session.run("sh", "-c", found[check][1])
        profile.write_text(profile.read_text().replace("export SSH_AUTH_SOCK=/tmp/other\n", ""))
        assert doctor(session) == dict.fromkeys(SEEN, (" this agent", ""))
        assert not list((session.home / "run/dbus-1/services").iterdir())
