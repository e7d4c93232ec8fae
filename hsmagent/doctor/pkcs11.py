"""Whether PKCS#11 programs are served as the configuration means it, and which sandboxes are."""

from collections.abc import Iterator, Sequence
from configparser import ConfigParser, Error
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.doctor.finding import Finding, State, Surroundings
from hsmagent.model import PKCS11_PURPOSES, printable

CHECK, SANDBOXES = "pkcs11", "sandboxes"
WORDS = " or ".join(f'"{kind}"' for kind in sorted(PKCS11_PURPOSES))
# Where flatpak keeps what applications ask for, and the overrides (flatpak-override(1)): the files,
# and which part of their path is the application's name.
SYSTEM_FLATPAK = "/var/lib/flatpak"
WISHES = ("app/*/current/active/metadata", -4)
OVERRIDES = ("overrides/*", -1)
GLOBAL = "global"  # the override for all applications


def served(settings: Config) -> Finding | None:
    """Say whether keys are meant for PKCS#11 programs that are not served, or the reverse."""
    allowed = any(PKCS11_PURPOSES & (entry.allow or frozenset()) for entry in settings.keys)
    enabled = settings.pkcs11.enabled
    if allowed and not enabled:
        sentence = "a key is allowed to PKCS#11 programs, but none are served"
        return Finding(CHECK, State.WARN, sentence, "set enabled = true in [pkcs11]")
    if enabled and not allowed:
        sentence = "PKCS#11 programs are served, but see no key: no allow names any of their uses"
        return Finding(CHECK, State.WARN, sentence, f"name {WORDS} in the allow of a [[key]]")
    if enabled:
        return Finding(CHECK, State.OK, "PKCS#11 programs are served, with keys allowed to them")
    return None


def sandboxes(where: Surroundings) -> Iterator[Finding]:
    """Say which flatpak applications reach our sockets, or those for PKCS#11 programs alone."""
    reach = dict[str, list[str]]()
    for name, granted in _grants(where):
        what = _reached(granted, where)
        if what:
            reach.setdefault(what, []).append(name)
    for what, names in sorted(reach.items()):
        shown = ", ".join(sorted(set(names)))
        if what == CHECK:
            sentence = f"these sandboxes may use keys as PKCS#11 programs: {shown}"
            yield Finding(SANDBOXES, State.OK, sentence)
            continue
        sentence = f"these sandboxes reach every socket of the agent: {shown}"
        remedy = (
            "flatpak override --user --nofilesystem=xdg-run/hsmagent APP, and for PKCS#11 alone"
            " --filesystem=xdg-run/hsmagent/pkcs11"
        )
        yield Finding(SANDBOXES, State.WARN, sentence, remedy)


def _reached(granted: list[Path], where: Surroundings) -> str:
    """Return what a sandbox with these folders reaches: "all" of our sockets, "pkcs11", or ""."""
    for_all = where.runtime_dir
    if any(for_all == path or path in for_all.parents for path in granted):
        return "all"
    for_programs = for_all / CHECK
    reached = (for_programs == path or for_programs in path.parents for path in granted)
    return CHECK if any(reached) else ""


def _grants(where: Surroundings) -> Iterator[tuple[str, list[Path]]]:
    """Yield each application and the folders it is granted, as flatpak adds them up.

    First comes what the application asks for, then the override for all applications, then the one
    for it alone. In each of these, what the person says comes after what the administrator says.
    """
    data = where.env.get("XDG_DATA_HOME") or f"{where.env.get('HOME', '')}/.local/share"
    folders = [Path(SYSTEM_FLATPAK), Path(data, "flatpak")]
    wishes, overrides = (_merged(folders, pattern, at) for pattern, at in (WISHES, OVERRIDES))
    for_all = overrides.pop(GLOBAL, {})
    for name in sorted({*wishes, *overrides}):
        granted = wishes.get(name, {}) | for_all | overrides.get(name, {})
        yield printable(name, 60), [_path(word, where) for word in granted if granted[word]]


def _merged(folders: Sequence[Path], pattern: str, at: int) -> dict[str, dict[str, bool]]:
    """Return what the files say, by application: the part `at` of the path is its name."""
    merged = dict[str, dict[str, bool]]()
    for folder in folders:
        for file in sorted(folder.glob(pattern)):
            merged.setdefault(file.parts[at], {}).update(_filesystems(file))
    return merged


def _path(word: str, where: Surroundings) -> Path:
    runtime = where.env.get("XDG_RUNTIME_DIR") or str(where.runtime_dir.parent)
    first, _, rest = word.partition("/")
    return Path(runtime, rest) if first == "xdg-run" else Path(word)


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
