"""Where software tokens keep their objects: a stat of these files tells of a change.

A running module shows late or never what other programs make, delete and rename: SoftHSM never a
new token, tpm2-pkcs11 nothing at all. A module that is not known here has no stamp; its tokens are
looked at anew when its worker is another one.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from hsmagent.model import ModuleSpec
from hsmagent.worker.link import worker_environment

Stamp = tuple[tuple[str, int, int], ...]
"""Of each file that is there: its path, time of last change (ns) and size."""

SOFTHSM_OWN = "~/.config/softhsm2/softhsm2.conf"
# softhsm2.conf(5); the last two are where Debian and others put it.
_SOFTHSM_CONFIGURATIONS = (
    SOFTHSM_OWN,
    "/etc/softhsm/softhsm2.conf",
    "/etc/softhsm2.conf",
)
_TOKEN_DIR = re.compile(r"^\s*directories\.tokendir\s*=\s*(\S.*?)\s*$", re.MULTILINE)
# It changes with every login, and holds nothing but the token's flags and PINs.
_SOFTHSM_LOGIN = "token.object"
_UNIX_PATH = "unix:path="
_NSS_FOLDER = re.compile(r"configdir='?(?:sql:)?([^' ]+)")


def stamp(module: ModuleSpec) -> Stamp:
    """Return what is another value once the objects of this module's tokens are others."""
    return tuple(_stats(files(module)))


def files(module: ModuleSpec) -> Iterator[Path]:
    """Return the files and folders that hold the module's tokens, its configuration before them."""
    name = Path(module.path).name
    find = next((find for part, find in _STORES.items() if part in name), None)
    return iter(()) if find is None else find(module, worker_environment(module.env))


def _softhsm_configuration(environment: Mapping[str, str]) -> Path:
    """Return the file that SoftHSM reads in this environment, whether it may be read or not."""
    named = environment.get("SOFTHSM2_CONF")
    if named:
        return Path(named)
    places = [_at_home(place, environment) for place in _SOFTHSM_CONFIGURATIONS]
    return next((place for place in places if _is_there(place)), places[1])


def _softhsm(_module: ModuleSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    configuration = _softhsm_configuration(environment)
    yield configuration
    try:
        found = _TOKEN_DIR.findall(configuration.read_text(errors="replace"))
        folder = Path(found[-1] if found else "/var/lib/softhsm/tokens")
        yield folder
        for token in sorted(folder.iterdir()):
            yield token
            yield from (file for file in sorted(token.glob("*.object")) if _matters(file))
    except OSError:
        return  # what cannot be read by us cannot be by the module


def _matters(file: Path) -> bool:
    return file.name != _SOFTHSM_LOGIN


def _tpm2(_module: ModuleSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    named = environment.get("TPM2_PKCS11_STORE")
    for folder in (named, "~/.tpm2_pkcs11", "/etc/tpm2_pkcs11"):
        if folder:
            yield _at_home(folder, environment) / "tpm2_pkcs11.sqlite3"


def _nss(module: ModuleSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    for folder in _NSS_FOLDER.findall(module.parameters):
        for file in ("key4.db", "cert9.db"):
            yield _at_home(folder, environment) / file


def _p11_kit_server(_module: ModuleSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the socket that the client module speaks to: another one is another server."""
    address = environment.get("P11_KIT_SERVER_ADDRESS", "")
    if address.startswith(_UNIX_PATH):
        yield Path(unquote(address.removeprefix(_UNIX_PATH)))
    elif not address and (runtime := environment.get("XDG_RUNTIME_DIR")):
        yield Path(runtime, "p11-kit/pkcs11")


# A part of the module's file name → what finds its files.
_STORES: Mapping[str, Callable[[ModuleSpec, Mapping[str, str]], Iterator[Path]]] = {
    "softhsm": _softhsm,
    "tpm2_pkcs11": _tpm2,
    "softokn": _nss,
    "p11-kit-client": _p11_kit_server,
}


def _at_home(path: str, environment: Mapping[str, str]) -> Path:
    return Path(path.replace("~", environment.get("HOME", "~"), 1) if path[:1] == "~" else path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # a folder that may not be entered
        return True


def _stats(paths: Iterator[Path]) -> Iterator[tuple[str, int, int]]:
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - Path.stat takes longer
        except OSError:
            continue
        yield str(path), status.st_mtime_ns, status.st_size
