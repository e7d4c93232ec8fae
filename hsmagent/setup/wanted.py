"""What belongs where: every piece that setup puts in place for one person.

Our own files are read at run time; a unit gets the path of the program that it is to run. What a
Debian package has put in place for everybody is not written again for one person.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hsmagent.errors import UsageError
from hsmagent.folders import PKCS11_SOCKET
from hsmagent.setup.home import Home
from hsmagent.setup.pieces import File, Line, Link
from hsmagent.setup.plan import Piece

NO_NETWORK = "hsmagent.service.d/no-network.conf"
PKCS11_UNITS = (
    "hsmagent-pkcs11.service",
    "hsmagent-face.socket",
    "hsmagent-pkcs11.socket",
)
PKCS11_MODULE = "pkcs11/modules/hsmagent.module"
GNUPG_AGENT = "gpg-agent.conf"
SCDAEMON = "hsmagent-scd"
_DBUS_SERVICE = "org.hsmagent.Agent1.service"
_ENVIRONMENT = "90-hsmagent.conf"
_PKCS11_ENVIRONMENT = "91-hsmagent-pkcs11.conf"
_AUTOSTART = "gnome-keyring-ssh.desktop"

# POSIX sh: read by every login shell but fish's, by X sessions under `set -e`. The agent that came
# with an ssh login stays.
PROFILE = """\
# Written by `hsmagent setup`: where ssh finds its agent.
if [ -S "${XDG_RUNTIME_DIR:-}/hsmagent/ssh.sock" ] &&
    { [ -z "${SSH_CONNECTION:-}" ] || [ -z "${SSH_AUTH_SOCK:-}" ]; }; then
    export SSH_AUTH_SOCK="$XDG_RUNTIME_DIR/hsmagent/ssh.sock"
fi
"""
PKCS11_PROFILE = """\
if [ -S "${XDG_RUNTIME_DIR:-}/hsmagent/pkcs11/pkcs11.sock" ]; then
    export P11_KIT_SERVER_ADDRESS="unix:path=$XDG_RUNTIME_DIR/hsmagent/pkcs11/pkcs11.sock"
fi
"""
FISH = """\
# Written by `hsmagent setup`: where ssh finds its agent.
if status is-login; and test -S "$XDG_RUNTIME_DIR/hsmagent/ssh.sock"
    if test -z "$SSH_CONNECTION"; or test -z "$SSH_AUTH_SOCK"
        set -gx SSH_AUTH_SOCK "$XDG_RUNTIME_DIR/hsmagent/ssh.sock"
    end
end
"""
PKCS11_FISH = """\
if status is-login; and test -S "$XDG_RUNTIME_DIR/hsmagent/pkcs11/pkcs11.sock"
    set -gx P11_KIT_SERVER_ADDRESS "unix:path=$XDG_RUNTIME_DIR/hsmagent/pkcs11/pkcs11.sock"
end
"""
NO_KEYRING = """\
# Written by `hsmagent setup`: gnome-keyring's ssh-agent would take the place of ours.
[Desktop Entry]
Type=Application
Name=SSH Key Agent
Hidden=true
"""


@dataclass(frozen=True, slots=True)
class System:
    """Where a package puts things for everybody, and what it has there."""

    root: Path = Path("/")

    def has(self, folders: tuple[str, ...], file: File) -> Path | None:
        """Return the same file in one of the system's folders, if it is there."""
        for folder in folders:
            path = self.root / folder / file.path.name
            if path.is_file() and path.read_bytes() == file.content:
                return path
        return None

    def has_shell(self, name: str) -> bool:
        """Whether the shell is installed."""
        return any((self.root / folder / name).exists() for folder in _BINARIES)


_BINARIES = ("bin", "usr/bin", "usr/local/bin")
_UNITS = ("usr/local/lib/systemd/user", "usr/lib/systemd/user")
_SERVICES = ("usr/local/share/dbus-1/services", "usr/share/dbus-1/services")


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person has chosen: no network for the agent; PKCS#11 programs served; GnuPG served."""

    no_network: bool = False
    pkcs11: bool = False
    gnupg: bool = False


def wanted(
    home: Home, shipped: Path, program: Path, choices: Choices, system: System | None = None
) -> list[Piece]:
    """Return every piece, units first. Raises UsageError for a program that cannot be run."""
    where = system or System()
    return [
        *_units(home, shipped, program, where, choices),
        *_pkcs11(home, shipped, choices),
        *_gnupg(home, program, choices),
        *_bus(home, shipped, where),
        File(
            home.config / "environment.d" / _ENVIRONMENT,
            (shipped / "systemd" / _ENVIRONMENT).read_bytes(),
        ),
        *_login_shells(home, where, choices),
        *_other_agents(home, where),
        *_completions(home, shipped, where),
        *_manual(home, shipped),
    ]


# -- systemd and the bus ---------------------------------------------------------------------


def _units(
    home: Home, shipped: Path, program: Path, system: System, choices: Choices
) -> Iterator[Piece]:
    folder = home.config / "systemd" / "user"
    source = shipped / "systemd"
    named = {"hsmagent.service", *(path.name for path in source.glob("*.socket"))}
    named = named | set(PKCS11_UNITS) if choices.pkcs11 else named - set(PKCS11_UNITS)
    links = []
    units = (source / name for name in named)
    for unit in sorted(units, key=lambda unit: (unit.suffix != ".service", unit.name)):
        content = unit.read_text()
        if unit.suffix == ".service":
            content = with_program(content, program)
        file = File(folder / unit.name, content.encode())
        elsewhere = system.has(_UNITS, file)
        if elsewhere is None:
            yield file
        if unit.suffix == ".socket":  # what `systemctl --user enable` does, without a manager
            link = folder / "sockets.target.wants" / unit.name
            links.append(Link(link, elsewhere or file.path))
    yield from links
    if choices.no_network:
        yield File(folder / NO_NETWORK, (source / NO_NETWORK).read_bytes())


def with_program(unit: str, program: Path) -> str:
    """Return the unit with the path of the program in ExecStart, quoted as systemd.syntax(7)."""
    if not (program.is_absolute() and program.is_file()) or re.search(r"[\x00-\x1f]", str(program)):
        raise UsageError(f"{program} is not a program; name the path of hsmagent with --program")
    path = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    word = path if re.fullmatch(r"[\w./+@-]+", path, re.ASCII) else f'"{path}"'
    return re.sub(r"^ExecStart=\S+", lambda _: f"ExecStart={word}", unit, flags=re.MULTILINE)


def _bus(home: Home, shipped: Path, system: System) -> Iterator[Piece]:
    file = File(
        home.data / "dbus-1" / "services" / _DBUS_SERVICE,
        (shipped / "systemd" / _DBUS_SERVICE).read_bytes(),
    )
    if system.has(_SERVICES, file) is None:
        yield file


# -- PKCS#11 programs ------------------------------------------------------------------------


def _pkcs11(home: Home, shipped: Path, choices: Choices) -> Iterator[Piece]:
    """Yield what p11-kit reads: which of its modules there are for this person, and where we are.

    The latter is for programs that load p11-kit-client.so by themselves.
    """
    if not choices.pkcs11:
        return
    # p11-kit expands nothing in an address.
    address = f"unix:path={home.runtime}/hsmagent/{PKCS11_SOCKET}"
    content = f"# Written by `hsmagent setup --pkcs11`.\nremote: {address}\n"
    yield File(home.config / PKCS11_MODULE, content.encode())
    environment = (shipped / "systemd" / _PKCS11_ENVIRONMENT).read_bytes()
    yield File(home.config / "environment.d" / _PKCS11_ENVIRONMENT, environment)


# -- GnuPG -----------------------------------------------------------------------------------


def _gnupg(home: Home, program: Path, choices: Choices) -> Iterator[Piece]:
    """Yield what has GnuPG's agent run our scdaemon. Raises UsageError where it is not there."""
    if not choices.gnupg:
        return
    scdaemon = program.with_name(SCDAEMON)
    if not scdaemon.is_file():
        raise UsageError(f"there is no {scdaemon}; install hsmagent anew, with all its programs")
    option = "scdaemon-program"
    yield Line(home.gnupg / GNUPG_AGENT, f"{option} {scdaemon}", option)


# -- login shells and X sessions -------------------------------------------------------------


def _login_shells(home: Home, system: System, choices: Choices) -> Iterator[Piece]:
    content = PROFILE + PKCS11_PROFILE if choices.pkcs11 else PROFILE
    profile = File(home.profile, content.encode())
    yield profile
    for path in _startup_files(home, system):
        yield Line(path, source_line(home, profile.path))
    fish = home.config / "fish"
    if home.shell == "fish" or fish.is_dir():
        content = FISH + PKCS11_FISH if choices.pkcs11 else FISH
        yield File(fish / "conf.d" / "hsmagent.fish", content.encode())


def source_line(home: Home, profile: Path) -> str:
    """Return the line that reads our snippet if it is there; true in any case, for `set -e`."""
    name = shlex.quote(str(profile))
    inside = str(profile.relative_to(home.home)) if profile.is_relative_to(home.home) else ""
    if re.fullmatch(r"[\w./+-]+", inside):
        name = f'"$HOME/{inside}"'
    return f"[ ! -r {name} ] || . {name}  # hsmagent setup"


_ZSH = (".zshenv", ".zprofile", ".zshrc")  # who has one uses zsh


def _startup_files(home: Home, system: System) -> Iterator[Path]:
    """Yield what a login reads: display managers ~/.profile, whatever the shell; the shell its own.

    Debian's X sessions read ~/.xsessionrc before they look whether they have to start an agent.
    """
    yield home.home / ".profile"
    if home.shell == "bash":
        own = (home.home / name for name in (".bash_profile", ".bash_login"))
        found = next((path for path in own if path.is_file()), None)
        if found is not None and ".profile" not in found.read_text(errors="replace"):
            yield found
    if home.shell == "zsh" or any((home.zdotdir / name).is_file() for name in _ZSH):
        yield home.zdotdir / ".zprofile"
    if (system.root / "etc/X11/Xsession").exists():
        yield home.home / ".xsessionrc"


def _other_agents(home: Home, system: System) -> Iterator[Piece]:
    """Yield what keeps GNOME's keyring from setting SSH_AUTH_SOCK (Debian 12's still does)."""
    if (system.root / "etc/xdg/autostart" / _AUTOSTART).exists():
        yield File(home.config / "autostart" / _AUTOSTART, NO_KEYRING.encode())


# -- completions -----------------------------------------------------------------------------

# shell, and folder in contrib/completions: the folder in the person's data, and a package's
_COMPLETIONS = {
    "bash": ("bash-completion/completions", "usr/share/bash-completion/completions"),
    "fish": ("fish/vendor_completions.d", "usr/share/fish/vendor_completions.d"),
    "zsh": ("zsh/site-functions", "usr/share/zsh/vendor-completions"),
}


def _completions(home: Home, shipped: Path, system: System) -> Iterator[Piece]:
    for shell, (ours, packaged) in _COMPLETIONS.items():
        if not system.has_shell(shell):
            continue
        for source in sorted((shipped / "contrib/completions" / shell).iterdir()):
            file = File(home.data / ours / source.name, source.read_bytes())
            if system.has((packaged,), file) is None:
                yield file


# -- the manual ------------------------------------------------------------------------------


def _manual(home: Home, shipped: Path) -> Iterator[Piece]:
    """Yield the manual's pages: man(1) finds them beside ~/.local/bin, wherever XDG's data is.

    A wheel has them in share/man, beside our own folder. Those of a Debian package are compressed,
    and so have other names: man(1) finds them without us.
    """
    checkout = shipped / "contrib" / "man"
    folder = checkout if checkout.is_dir() else shipped.parent / "man"
    for page in sorted(folder.glob("man[1-9]/hsmagent*.[1-9]")):
        place = home.home / ".local/share/man" / page.parent.name
        yield File(place / page.name, page.read_bytes())
