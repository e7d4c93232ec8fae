"""Which PKCS#11 modules to load when the configuration names none.

p11-kit's registration files (pkcs11.conf(5)) say what is installed; OpenSC and SoftHSM are found
by their usual paths as well, unless a registration keeps them from us. Trust stores and keyrings
are left out, since they hold no token's keys; so are modules that show what another process
serves, since that may be ourselves.
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.folders import home_folder
from hsmagent.model import ModuleSpec

# What the administrator registers counts before what packages do.
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
# These show what other processes serve. p11-kit-proxy.so is a link to libp11-kit.so.
LEAD_ELSEWHERE = ("p11-kit-proxy", "p11-kit-client", "libp11-kit.so")


def modules(settings: Config) -> tuple[ModuleSpec, ...]:
    """Return the modules to load: those that are named, else those that are installed."""
    return settings.modules or tuple(ModuleSpec(path, named=False) for path in discover())


@dataclass(frozen=True, slots=True)
class Registration:
    """A module that is registered: in files of this name, by what path, and who shall load it."""

    file: str
    path: str
    is_for_us: bool
    is_for_all: bool


def discover() -> tuple[str, ...]:
    """Return the paths of the installed modules, each once, in a stable order."""
    registered = registered_for(home_folder("XDG_CONFIG_HOME", "~/.config"))
    ours = [each.path for each in registered if each.is_for_us]
    kept_from_us = {os.path.realpath(each.path) for each in registered if not each.is_for_us}
    usual = (path for pattern in USUAL for path in sorted(glob.glob(pattern)))  # noqa: PTH207
    allowed = (path for path in usual if os.path.realpath(path) not in kept_from_us)
    unique = dict[str, str]()
    for path in (*ours, *allowed):
        unique.setdefault(os.path.realpath(path), path)
    return tuple(unique.values())


def registered_for(config_home: str) -> tuple[Registration, ...]:
    """Return the modules registered for everybody and for the person with this configuration."""
    folders = map(Path, (f"{config_home}/{USER_MODULES}", *SYSTEM_MODULES))
    return tuple(registrations(*folders))


def registrations(*folders: Path) -> Iterator[Registration]:
    """Return each module that a `.module` file registers.

    Files of the same name in several folders are one registration. Where they differ, the earlier
    folder counts.
    """
    merged: dict[str, dict[str, str]] = {}
    for folder in folders:
        for file in folder.glob("*.module"):
            try:
                settings = parse(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):
                continue
            merged[file.name] = settings | merged.get(file.name, {})
    for name, settings in sorted(merged.items()):
        if path := _find(settings.get("module", "")):
            for_all = not settings.get("enable-in") and "remote" not in settings
            yield Registration(name, path, _is_for_us(settings, path), for_all)


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
    found = (sorted(glob.glob(f"{pattern}/{module}")) for pattern in LIBRARY_PATTERNS)  # noqa: PTH207
    return next((paths[0] for paths in found if paths), "")


def certificate_files(pattern: str) -> list[str]:
    """Return the files that a pattern of `[ssh] certificates` names; for a folder those in it."""
    inside = f"{pattern}/*-cert.pub" if Path(pattern).is_dir() else pattern
    return sorted(glob.glob(inside))  # noqa: PTH207 - an absolute pattern is no Path
