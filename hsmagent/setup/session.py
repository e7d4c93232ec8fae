"""The login session that runs now: it is told of the new files, and searched for other agents."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsmagent.setup.home import Home

TIMEOUT = 30.0  # seconds for one command of systemd
_DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
SERVICE, PKCS11_SERVICE = "hsmagent.service", "hsmagent-pkcs11.service"
PKCS11_SOCKET_UNIT = "hsmagent-pkcs11.socket"
# PKCS11_SOCKET_UNIT wants this one, and so starts even if this one fails: it does while the agent
# runs and has made that socket itself.
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
        """Have the new units read and the sockets listen, and tell the bus where ssh's is.

        Returns whether the sockets listen. One that listens already is not started anew, since that
        would end its service.
        """
        self._reload()
        started = self._systemctl("start", *(s for s in sockets if s != FACE_SOCKET_UNIT))
        where = f"{self.env.get('XDG_RUNTIME_DIR', f'/run/user/{os.getuid()}')}/hsmagent/ssh.sock"
        update = ("UpdateActivationEnvironment", "a{ss}", "1", "SSH_AUTH_SOCK", where)
        self._run("busctl", "--user", "--quiet", "call", *_DBUS, *update)
        return started

    def stop(self, sockets: Sequence[str], *, agent: bool = False) -> None:
        """End these sockets, and then their services, so that no socket starts one again.

        agent: end the agent, too; else only the service for PKCS#11 programs, if its socket ends.
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
        return succeeds(self.env, TIMEOUT, *command)


def succeeds(env: Mapping[str, str], seconds: float, *command: str) -> bool:
    """Run a command silently; return whether it is there and exits with 0 in time."""
    try:
        done = subprocess.run(
            command, env=dict(env), capture_output=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


# -- what else sets SSH_AUTH_SOCK --------------------------------------------------------------

_FILES = (
    *(".profile", ".bash_profile", ".bash_login", ".bashrc", ".xprofile", ".xsessionrc"),
    *(".zshenv", ".zprofile", ".zshrc", ".zlogin", ".config/fish/config.fish", ".pam_environment"),
)
# Lines that start or name an agent, comments aside.
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
    conf = home.gnupg / "gpg-agent.conf"
    if _GPG_AGENT.search(_text(conf)):
        out_of = f"take enable-ssh-support out of {home.short(conf)}."
        yield f"Debian's X sessions find gpg-agent: {out_of}"
    for unit, whose in _SOCKETS.items():
        wants = home.config / "systemd/user/sockets.target.wants"
        if (wants / unit).is_symlink():
            yield f"{unit} starts {whose} before ours: systemctl --user disable --now {unit}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
