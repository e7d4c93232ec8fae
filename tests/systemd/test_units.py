"""The units: what systemd says of them, and the agent under it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hsmagent.errors import Refused
from tests.daemon.conftest import module_config
from tests.parts.agent.face import FaceClient
from tests.parts.agent.pkcs11 import FREELY
from tests.parts.desktop.systemd import UserManager, missing, user_manager
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

ROOT = Path(__file__).parents[2]
SETUP = ("hsmagent", "setup", "--yes")
SOCKETS = ["hsmagent-ssh.socket", "hsmagent-control.socket", "hsmagent-mail.socket"]
PKCS11 = ["hsmagent-face.socket", "hsmagent-pkcs11.socket", "hsmagent-pkcs11.service"]
UNITS = ["hsmagent.service", *SOCKETS]

WHY_NOT = missing()
needs_manager = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def install(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run setup for a person whose session does not run."""
    return subprocess.run(
        [sys.executable, "-m", "hsmagent", "setup", "--yes", *arguments],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("folder", ["bin", "a b % \u00fc $HOME"])
def test_systemd_finds_no_fault_with_them(tmp_path: Path, program: Path, folder: str) -> None:
    named = tmp_path / folder / "hsmagent"
    named.parent.mkdir()
    named.symlink_to(program)
    done = install(tmp_path, "--program", str(named), "--no-network", "--pkcs11")
    assert done.returncode == 0, done.stderr
    units = tmp_path / ".config/systemd/user"
    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify", *(str(units / unit) for unit in UNITS + PKCS11)],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in verified.stderr.splitlines() if "hsmagent" in line]
    assert (verified.returncode, ours) == (0, []), verified.stderr


# -- a real activation, without a manager ----------------------------------------------------


def test_systemd_socket_activate_starts_the_daemon(short: Path, program: Path) -> None:
    """The first client starts it, and is answered."""
    ssh, control, mail, face = (short / name for name in ("s", "c", "m", "f"))
    with (short / "log").open("wb") as log:
        listening = subprocess.Popen(
            [
                *("systemd-socket-activate", "--fdname=ssh:control:mail:face"),
                *(f"--listen={path}" for path in (ssh, control, mail, face)),
                *(str(program), "daemon", "--runtime-dir", str(short / "run")),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(short), "XDG_RUNTIME_DIR": str(short)},
            stderr=log,
        )
    try:
        until(lambda: all(path.exists() for path in (ssh, control, mail, face)))
        listed = subprocess.run(
            ["ssh-add", "-l"],
            env={"SSH_AUTH_SOCK": str(ssh), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert listed.returncode in (0, 1), (short / "log").read_text()
        # It became the daemon, and made no sockets of its own.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(control))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(mail))
        # Nobody has enabled what this one is for: it says so.
        with closing(FaceClient(face)) as for_nobody, pytest.raises(Refused, match="enabled"):
            for_nobody.client(None)
        assert not (short / "run").exists()
    finally:
        listening.terminate()
        assert listening.wait(20) == 0, (short / "log").read_text()


# -- under a real manager --------------------------------------------------------------------


@pytest.fixture
def manager(program: Path) -> Iterator[UserManager]:
    with user_manager([program.parent]) as manager:
        yield manager


@needs_manager
def test_a_login_session(manager: UserManager) -> None:
    token = SoftHsm.create(manager.home / "hsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ec")
    config = manager.home / ".config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(module_config(token))
    manager.run(*SETUP)
    service = UNITS[0]
    assert {manager.property(unit, "ActiveState") for unit in SOCKETS} == {"active"}
    assert manager.property(service, "ActiveState") == "inactive"
    auth_sock = manager.home / "run/hsmagent/ssh.sock"
    assert f"SSH_AUTH_SOCK={auth_sock}" in manager.systemctl("show-environment").splitlines()

    # The first question starts it, hardened, with all that a token needs.
    manager.environment["SSH_AUTH_SOCK"] = str(auth_sock)
    assert "ECDSA" in manager.run("ssh-add", "-l").stdout
    assert manager.property(service, "ActiveState") == "active"
    assert manager.property(service, "NoNewPrivileges") == "yes"
    pid = manager.property(service, "MainPID")
    unlock = ["hsmagent", "unlock", "--stdin"]
    subprocess.run(unlock, env=manager.environment, input=PIN, text=True, check=True, timeout=60)
    public = manager.home / "key.pub"
    public.write_text(manager.run("ssh-add", "-L").stdout)
    (manager.home / "text").write_text("text")
    sign = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public), str(manager.home / "text")]
    manager.run(*sign)

    # A crash is survived: the sockets stay, the next question is answered by a new one.
    manager.systemctl("kill", "--signal=KILL", service)
    until(lambda: manager.property(service, "MainPID") not in (pid, "0"))
    assert "ECDSA" in manager.run("ssh-add", "-l").stdout

    manager.systemctl("reload", service)
    assert "ECDSA" in manager.run("ssh-add", "-l").stdout
    manager.run(*SETUP, "--remove")
    assert manager.property(service, "ActiveState") == "inactive"
    assert "SSH_AUTH_SOCK=" not in manager.systemctl("show-environment")
    assert not auth_sock.exists()


@needs_manager
def test_pkcs11_programs_find_a_token_from_login_on(manager: UserManager) -> None:
    """Neither the daemon nor its face runs when the program starts."""
    token = SoftHsm.create(manager.home / "hsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ec")
    config = manager.home / ".config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(FREELY + module_config(token))
    manager.run(*SETUP, "--pkcs11")
    assert manager.property("hsmagent.service", "ActiveState") == "inactive"
    printed = manager.run("p11tool", "--list-tokens").stdout
    assert "token=work" in printed
    environment = manager.systemctl("show-environment")
    assert f"P11_KIT_SERVER_ADDRESS=unix:path={manager.home}/run/hsmagent/pkcs11/pkcs11.sock" in (
        environment.splitlines()
    )
    for service in ("hsmagent.service", "hsmagent-pkcs11.service"):
        assert manager.property(service, "ActiveState") == "active"
    manager.run(*SETUP, "--no-pkcs11")
    assert manager.property("hsmagent-pkcs11.service", "ActiveState") == "inactive"
    assert not (manager.home / "run/hsmagent/pkcs11/pkcs11.sock").exists()
    assert "P11_KIT_SERVER_ADDRESS" not in manager.systemctl("show-environment")
    assert "token=work" not in manager.run("p11tool", "--list-tokens").stdout


@needs_manager
def test_the_bus_starts_the_daemon_for_a_panel(manager: UserManager) -> None:
    config = manager.home / ".config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[[module]]\npath = "{MODULE}"\n')
    manager.run(*SETUP)
    name, path = "org.hsmagent.Agent1", "/org/hsmagent/Agent1"
    version = manager.run("busctl", "--user", "get-property", name, path, name, "Version").stdout
    assert version.startswith('s "')
    until(lambda: manager.property("hsmagent.service", "ActiveState") == "active")
    # The doctor sees all of it.
    found = json.loads(manager.run("hsmagent", "doctor", "--json", check=False).stdout)
    states = {each["check"]: each["state"] for each in found}
    for check in ("daemon", "systemd", "session", "bus"):
        assert states[check] == "ok"


def test_the_session_knows_the_agent_before_any_unit_starts(tmp_path: Path) -> None:
    """environment.d, as the manager reads it."""
    assert install(tmp_path, "--program", "/bin/true").returncode == 0
    generated = subprocess.run(
        ["/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"],
        env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SSH_AUTH_SOCK=/run/user/1/hsmagent/ssh.sock" in generated.stdout.splitlines()


@needs_manager
def test_every_program_of_the_session_knows_the_agent(program: Path) -> None:
    """From the next login on, whatever other agents' sockets the session has."""

    def installed_before(home: Path) -> None:
        assert install(home, "--program", str(program)).returncode == 0

    with user_manager([program.parent], installed_before) as manager:
        socket_of = f"SSH_AUTH_SOCK={manager.home}/run/hsmagent/ssh.sock"
        assert socket_of in manager.systemctl("show-environment").splitlines()
