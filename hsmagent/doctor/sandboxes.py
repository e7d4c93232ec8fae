"""Which sandboxes reach our sockets: those whose files say so, and those that run now.

Files are flatpak's, snap's and Firejail's. Bubblewrap has none, and most of Firejail's profiles
leave the whole runtime folder open: of these, the kernel tells which socket a process would find.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path

from hsmagent.doctor.finding import Finding, State, Surroundings
from hsmagent.folders import PKCS11_SOCKET
from hsmagent.model import printable
from hsmagent.who.peer import peer_of_process

CHECK = "sandboxes"
EVERYTHING, PROGRAMS = "every socket of the agent", "the socket for PKCS#11 programs"
# Where flatpak keeps what applications ask for, and the overrides (flatpak-override(1)): the files,
# and which part of their path is the application's name.
SYSTEM_FLATPAK = "/var/lib/flatpak"
WISHES = ("app/*/current/active/metadata", -4)
OVERRIDES = ("overrides/*", -1)
GLOBAL = "global"  # the override for all applications
FLATPAK_REMEDY = (
    "flatpak override --user --nofilesystem=xdg-run/hsmagent APP, and for PKCS#11 alone"
    " --filesystem=xdg-run/hsmagent/pkcs11"
)
# What snaps want (snap.yaml; the interface system-files), wherever the system mounts them.
SNAPS = ("/snap", "/var/lib/snapd/snap")
SNAP = "*/current/meta/snap.yaml"
# Firejail's profiles (firejail-profile(5)); in a person's own folder beside the system's.
SYSTEM_FIREJAIL = "/etc/firejail"
FIREJAIL_REMEDY = "whitelist ${RUNUSER}/hsmagent/pkcs11 alone in it, or nothing of the agent"
FIREJAIL_KINDS = ("*.profile", "*.local", "*.inc")
PROC = Path("/proc")
MOST_NAMED = 6  # of those that run


@dataclass(frozen=True, slots=True)
class Grant:
    """The folders of which a sandbox may reach something, and how these are taken from it."""

    name: str
    folders: Sequence[Path]
    remedy: str


def all_of(where: Surroundings) -> list[Finding]:
    """Say which sandboxes reach our sockets, or those for PKCS#11 programs alone."""
    named: dict[tuple[str, str], set[str]] = {}
    for grant in (*_of_flatpak(where), *_of_snap(where), *_of_firejail(where)):
        if what := _reached(grant.folders, where.runtime_dir):
            remedy = grant.remedy if what == EVERYTHING else ""
            named.setdefault((what, remedy), set()).add(grant.name)
    return [
        *(_named(what, names, remedy) for (what, remedy), names in sorted(named.items())),
        *(_found(what, names) for what, names in sorted(_running(where).items())),
    ]


def _named(what: str, names: Iterable[str], remedy: str) -> Finding:
    sentence = f"these sandboxes may reach {what}: {', '.join(sorted(names))}"
    return Finding(CHECK, State.WARN if remedy else State.OK, sentence, remedy)


def _found(what: str, names: Collection[str]) -> Finding:
    """Say who runs in another mount namespace; a container may well be meant to reach it all."""
    first, more = sorted(names)[:MOST_NAMED], len(names) - MOST_NAMED
    listed = ", ".join(first) + (f", and {more} more" if more > 0 else "")
    return Finding(CHECK, State.OK, f"these run in a sandbox and reach {what}: {listed}")


def _reached(granted: Iterable[Path], ours: Path) -> str:
    """Return what a sandbox with these folders reaches: EVERYTHING, PROGRAMS, or ""."""
    for_programs = ours / Path(PKCS11_SOCKET).parent
    reached = ""
    for path in granted:
        if ours == path or path in ours.parents:
            return EVERYTHING
        if for_programs == path or for_programs in path.parents:
            reached = PROGRAMS
    return reached


def _runtime(where: Surroundings) -> str:
    return where.env.get("XDG_RUNTIME_DIR") or str(where.runtime_dir.parent)


# -- those that run --------------------------------------------------------------------------


def _running(where: Surroundings) -> dict[str, set[str]]:
    """Return what runs in another mount namespace, by the socket of ours that it finds there.

    Processes that do not let us look are left out.
    """
    sockets = {EVERYTHING: where.ssh_socket, PROGRAMS: where.runtime_dir / PKCS11_SOCKET}
    found: dict[str, set[str]] = {}
    for process in PROC.glob("[0-9]*"):
        try:
            if process.stat().st_uid != os.getuid() or _is_beside_us(process):
                continue
            what = next((what for what, path in sockets.items() if _finds(process, path)), "")
        except OSError:
            continue
        if what:
            peer = peer_of_process(int(process.name), os.getuid())
            found.setdefault(what, set()).add(peer.process.program)
    return found


def _is_beside_us(process: Path) -> bool:
    return (process / "ns/mnt").samefile(PROC / "self/ns/mnt")


def _finds(process: Path, socket: Path) -> bool:
    try:
        return (process / "root" / socket.relative_to("/")).samefile(socket)
    except (FileNotFoundError, NotADirectoryError):
        return False


# -- snap and Firejail -----------------------------------------------------------------------


def _of_snap(where: Surroundings) -> Iterator[Grant]:
    path = re.compile(rf"{re.escape(_runtime(where))}[^\s\"',\]]*")
    for file in (file for folder in SNAPS for file in Path(folder).glob(SNAP)):
        name = printable(file.parts[-4], 60)
        remedy = f"sudo snap disconnect {name}:PLUG, which `snap connections {name}` shows"
        yield Grant(name, [Path(found) for found in path.findall(_text(file))], remedy)


def _of_firejail(where: Surroundings) -> Iterator[Grant]:
    """Yield what profiles let a program see; those that hide nothing show it when it runs."""
    config = where.home_folder("XDG_CONFIG_HOME", ".config")
    line = re.compile(r"^\s*whitelist\s+(\S.*?)\s*$", re.MULTILINE)
    for folder in (SYSTEM_FIREJAIL, f"{config}/firejail"):
        for file in (file for kind in FIREJAIL_KINDS for file in Path(folder).glob(kind)):
            text = _text(file).replace("${RUNUSER}", _runtime(where))
            paths = [Path(path) for path in line.findall(text)]
            yield Grant(printable(file.name, 60), paths, FIREJAIL_REMEDY)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


# -- flatpak ---------------------------------------------------------------------------------


def _of_flatpak(where: Surroundings) -> Iterator[Grant]:
    """Yield each application and the folders it is granted, as flatpak adds them up.

    First comes what the application asks for, then the override for all applications, then the one
    for it alone. In each of these, what the person says comes after what the administrator says.
    """
    data = where.home_folder("XDG_DATA_HOME", ".local/share")
    folders = [Path(SYSTEM_FLATPAK), Path(data, "flatpak")]
    wishes, overrides = (_merged(folders, pattern, at) for pattern, at in (WISHES, OVERRIDES))
    for_all = overrides.pop(GLOBAL, {})
    for name in sorted({*wishes, *overrides}):
        granted = wishes.get(name, {}) | for_all | overrides.get(name, {})
        folders = [_path(word, where) for word in granted if granted[word]]
        yield Grant(printable(name, 60), folders, FLATPAK_REMEDY)


def _merged(folders: Sequence[Path], pattern: str, at: int) -> dict[str, dict[str, bool]]:
    """Return what the files say, by application: the part `at` of the path is its name."""
    merged = dict[str, dict[str, bool]]()
    for folder in folders:
        for file in sorted(folder.glob(pattern)):
            merged.setdefault(file.parts[at], {}).update(_filesystems(file))
    return merged


def _path(word: str, where: Surroundings) -> Path:
    first, _, rest = word.partition("/")
    return Path(_runtime(where), rest) if first == "xdg-run" else Path(word)


def _filesystems(file: Path) -> dict[str, bool]:
    """Return each folder that a file grants or refuses (flatpak-metadata(5), "filesystems")."""
    parser = ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(file, encoding="utf-8")
        words = parser.get("Context", "filesystems", fallback="").split(";")
    except (OSError, UnicodeDecodeError, Error):
        return {}
    return {
        word.removeprefix("!").partition(":")[0].rstrip("/"): not word.startswith("!")
        for word in filter(None, map(str.strip, words))
    }
