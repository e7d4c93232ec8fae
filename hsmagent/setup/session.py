"""The session that runs now: what it is told of the new files, and what it says of others' ways."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsmagent.setup.home import Home

TIMEOUT = 30.0  # seconds for one command of systemd
_DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
SERVICE, PKCS11_SERVICE = "hsmagent.service", "hsmagent-pkcs11.service"
PKCS11_SOCKET_UNIT = "hsmagent-pkcs11.socket"
# Wanted by the one above, so that it may fail: it does while the agent runs, which then has made
# that socket itself.
FACE_SOCKET_UNIT = "hsmagent-face.socket"


@dataclass(frozen=True, slots=True)
class Session:
    """systemd's user manager and the session's bus, as far as they answer."""

    env: Mapping[str, str]

    def runs(self) -> bool:
        """Whether there is a user manager."""
        return self._systemctl("show", "--property=Version")

    def agent_runs(self) -> bool:
        """Whether the manager runs our agent; asking does not start it."""
        return self._systemctl("is-active", SERVICE)

    def start(self, sockets: Sequence[str]) -> bool:
        """Have the new units read and the sockets listen; tell manager and bus where. False: not.

        A socket that listens already stays as it is, since its service would end with it.
        """
        self._reload()
        started = self._systemctl("start", *(s for s in sockets if s != FACE_SOCKET_UNIT))
        where = f"{self.env.get('XDG_RUNTIME_DIR', f'/run/user/{os.getuid()}')}/hsmagent/ssh.sock"
        update = ("UpdateActivationEnvironment", "a{ss}", "1", "SSH_AUTH_SOCK", where)
        self._run("busctl", "--user", "--quiet", "call", *_DBUS, *update)
        return started

    def stop(self, sockets: Sequence[str], *, agent: bool = False) -> None:
        """End sockets, and then what they have started, so that nobody starts it again.

        agent: the agent, too; else only the service for PKCS#11 programs, if that socket ends.
        """
        services = [SERVICE] if agent else []
        if PKCS11_SOCKET_UNIT in sockets:
            services.append(PKCS11_SERVICE)
        if sockets or services:
            self._systemctl("stop", *sockets, *services)

    def forget(self) -> None:
        """Have the units forgotten, after their files are gone."""
        self._reload()

    def _reload(self) -> None:
        self._systemctl("daemon-reload")
        # The bus does not watch a folder that was not there when it started.
        self._run("busctl", "--user", "--quiet", "call", *_DBUS, "ReloadConfig")

    def _systemctl(self, *arguments: str) -> bool:
        return self._run("systemctl", "--user", "--quiet", *arguments)

    def _run(self, *command: str) -> bool:
        if shutil.which(command[0], path=self.env.get("PATH")) is None:
            return False
        try:
            done = subprocess.run(
                command, env=dict(self.env), capture_output=True, check=False, timeout=TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


# -- what else has a hand in SSH_AUTH_SOCK -----------------------------------------------------

_FILES = (
    *(".profile", ".bash_profile", ".bash_login", ".bashrc", ".xprofile", ".xsessionrc"),
    *(".zshenv", ".zprofile", ".zshrc", ".zlogin", ".config/fish/config.fish", ".pam_environment"),
)
# Starts or names an agent; in comments it does no harm.
_AGENT = re.compile(r"^[^#]*(\bssh-agent\b|\bkeychain\b|gpgconf.*agent-ssh-socket|SSH_AUTH_SOCK=)")
_GPG_AGENT = re.compile(r"^\s*enable-ssh-support", re.MULTILINE)
_SOCKETS = {
    "gcr-ssh-agent.socket": "GNOME's gcr-ssh-agent",
    "gpg-agent-ssh.socket": "gpg-agent",
    "ssh-agent.socket": "OpenSSH's ssh-agent",
}


def others(home: Home) -> Iterator[str]:
    """Yield a sentence for each file or unit of this person's that sets SSH_AUTH_SOCK too."""
    for name in _FILES:
        for number, line in enumerate(_text(home.home / name).splitlines(), 1):
            if _AGENT.search(line) and "hsmagent" not in line:
                yield f"~/{name}, line {number}, sets another agent: take it out."
    conf = ".gnupg/gpg-agent.conf"
    if _GPG_AGENT.search(_text(home.home / conf)):
        yield f"Debian's X sessions find gpg-agent: take enable-ssh-support out of ~/{conf}."
    for unit, whose in _SOCKETS.items():
        wants = home.config / "systemd/user/sockets.target.wants"
        if (wants / unit).is_symlink():
            yield f"{unit} starts {whose} before ours: systemctl --user disable --now {unit}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
