"""Which PKCS#11 modules to load when the configuration names none.

p11-kit's registration files (pkcs11.conf(5)) say what is installed; OpenSC and SoftHSM are found
by their usual paths as well, unless a registration keeps them from us. Trust stores and keyrings
are left out: they hold no keys of a token. So is what leads to another process's tokens: those may
be our own.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.folders import home_folder
from hsmagent.model import ModuleSpec

# The administrator's before the packages'.
SYSTEM_MODULES = ("/etc/pkcs11/modules", "/usr/share/p11-kit/modules")
USER_MODULES = "pkcs11/modules"  # below $XDG_CONFIG_HOME

# Where p11-kit looks for a module that is registered by its bare name.
LIBRARY_PATTERNS = (
    "/usr/lib/*/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
    "/usr/lib/*-linux-gnu*",
    "/usr/lib64",
    "/usr/lib",
)
USUAL = (
    "/usr/lib/*/opensc-pkcs11.so",
    "/usr/lib64/opensc-pkcs11.so",
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
)
LEFT_OUT = ("p11-kit-trust", "gnome-keyring")
# These lead to what others serve, ourselves among them; the proxy is p11-kit's own library.
LEAD_ELSEWHERE = ("p11-kit-proxy", "p11-kit-client", "libp11-kit.so")


def modules(settings: Config) -> tuple[ModuleSpec, ...]:
    """Return the modules to load: those that are named, else those that are installed."""
    return settings.modules or tuple(ModuleSpec(path, named=False) for path in discover())


def discover() -> tuple[str, ...]:
    """Return the paths of the installed modules, each once, in a stable order."""
    config_home = home_folder("XDG_CONFIG_HOME", "~/.config")
    folders = map(Path, (f"{config_home}/{USER_MODULES}", *SYSTEM_MODULES))
    registered = list(registrations(*folders))
    ours = [path for path, is_for_us in registered if is_for_us]
    kept_from_us = {os.path.realpath(path) for path, is_for_us in registered if not is_for_us}
    usual = (path for pattern in USUAL for path in sorted(glob.glob(pattern)))  # noqa: PTH207
    allowed = (path for path in usual if os.path.realpath(path) not in kept_from_us)
    return tuple(_each_once([*ours, *allowed]))


def registrations(*folders: Path) -> Iterator[tuple[str, bool]]:
    """Return each module that a `.module` file registers, and whether it is meant for us.

    Files of one name are one registration; what an earlier folder says of it counts.
    """
    merged: dict[str, dict[str, str]] = {}
    for folder in folders:
        for file in folder.glob("*.module"):
            try:
                settings = parse(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):
                continue
            merged[file.name] = settings | merged.get(file.name, {})
    for _, settings in sorted(merged.items()):
        if path := _find(settings.get("module", "")):
            yield path, _is_for_us(settings, path)


def parse(text: str) -> dict[str, str]:
    """Read one registration file: `name: value` lines, `#` comments."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_for_us(settings: dict[str, str], path: str) -> bool:
    listed = settings.get("enable-in", "")
    programs = {name.strip() for name in listed.split(",")}
    names = path + os.path.realpath(path)
    return (
        not any(name in names for name in (*LEFT_OUT, *LEAD_ELSEWHERE))
        and "remote" not in settings
        and settings.get("trust-policy", "no") != "yes"
        and (not listed or "hsmagent" in programs)
        and "hsmagent" not in settings.get("disable-in", "")
    )


def _find(module: str) -> str:
    if not module or module.startswith("/"):
        return module if Path(module).is_file() else ""
    for pattern in LIBRARY_PATTERNS:
        for found in sorted(glob.glob(f"{pattern}/{module}")):  # noqa: PTH207
            return found
    return ""


def _each_once(paths: Iterable[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        real = os.path.realpath(path)
        if real not in seen:
            seen.add(real)
            yield path


def certificate_files(pattern: str) -> list[str]:
    """Return the files that a pattern of `[ssh] certificates` names; a folder: those in it."""
    inside = f"{pattern}/*-cert.pub" if Path(pattern).is_dir() else pattern
    return sorted(glob.glob(inside))  # noqa: PTH207 - an absolute pattern is no Path
