"""The folders of one person's home that setup writes to, and where our own files come from."""

import os
import pwd
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import hsmagent
from hsmagent.errors import UsageError
from hsmagent.folders import gnupg_folder

# A file by which the folder of our files is known.
_MARK = ("systemd", "hsmagent.service")


@dataclass(frozen=True, slots=True)
class Home:
    """One person's home, base folders (XDG Base Directory Specification) and shell ("zsh").

    runtime: where systemd's user manager has the sockets (%t). gnupg: GnuPG's folder.
    """

    home: Path
    config: Path
    data: Path
    state: Path
    runtime: Path
    gnupg: Path
    zdotdir: Path
    shell: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Home":
        """Return the home that the environment tells; a relative XDG path counts as unset."""
        entry = pwd.getpwuid(os.getuid())
        home = Path(env.get("HOME") or entry.pw_dir)

        def base(name: str, usual: str) -> Path:
            return Path(env[name]) if env.get(name, "").startswith("/") else home / usual

        return cls(
            home=home,
            config=base("XDG_CONFIG_HOME", ".config"),
            data=base("XDG_DATA_HOME", ".local/share"),
            state=base("XDG_STATE_HOME", ".local/state"),
            runtime=base("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"),
            gnupg=Path(gnupg_folder(env)),
            zdotdir=base("ZDOTDIR", "."),
            shell=Path(env.get("SHELL") or entry.pw_shell).name,
        )

    @property
    def profile(self) -> Path:
        """Setup's file that login shells read."""
        return self.config / "hsmagent" / "profile.sh"

    def short(self, path: Path) -> str:
        """Return the path as a person writes it, with ~ for the home."""
        return f"~/{path.relative_to(self.home)}" if path.is_relative_to(self.home) else str(path)


def shipped() -> Path:
    """Return the folder that holds our systemd/ and contrib/: of a checkout, or of a wheel.

    A wheel carries them as data files, which each installer puts elsewhere; the wheel's RECORD says
    where. Raises UsageError when they are not there.
    """
    checkout = Path(hsmagent.__file__).parents[1]
    if checkout.joinpath(*_MARK).is_file():
        return checkout
    try:
        files = metadata.files("hsmagent") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == _MARK and "share" in file.parts:
            return Path(file.locate()).resolve().parents[1]
    raise UsageError("hsmagent's own units are not there: install it anew, from its wheel")


def own_program(env: Mapping[str, str]) -> Path:
    """Return the path of `hsmagent` for units: the one on the PATH, if that is this installation's.

    A link on the PATH (such as ~/.local/bin/hsmagent) stays when the virtual environment that it
    leads to is made anew. Raises UsageError when there is no such program.
    """
    own = Path(sysconfig.get_path("scripts"), "hsmagent")
    found = shutil.which("hsmagent", path=env.get("PATH", os.defpath))
    if found is not None and own.exists() and own.samefile(found):
        return Path(os.path.abspath(found))  # noqa: PTH100 - resolve() would follow the link
    if own.exists():
        return own
    if found is None:
        raise UsageError("there is no program hsmagent; name it with --program")
    return Path(os.path.abspath(found))  # noqa: PTH100
