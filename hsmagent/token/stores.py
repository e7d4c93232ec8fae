"""Where software tokens keep their objects: a stat of these files tells of a change.

The kernel tells when a stat is worth while (`notices`), so that `outdated` costs nothing otherwise.

A running module shows late or never what other programs make, delete and rename: SoftHSM never
shows a new token, tpm2-pkcs11 no change at all. For a module that is not known here no files are
watched; changes to its tokens show when its worker is replaced.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from hsmagent.model import Listener, ModuleSpec
from hsmagent.token import pcscd
from hsmagent.token.notices import Notices
from hsmagent.worker.process import worker_environment

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
# This file changes with every login, and holds nothing but the token's flags and PINs.
_SOFTHSM_LOGIN = "token.object"
_UNIX_PATH = "unix:path="
_NSS_FOLDER = re.compile(r"configdir='?(?:sql:)?([^' ]+)")


class Store:
    """The files of one module's tokens.

    on_change: called when they may have changed, which `outdated` then tells; and when pcscd's
    socket may have, since cards may come and go with pcscd.
    """

    def __init__(self, module: ModuleSpec, on_change: Listener) -> None:
        self._module = module
        self._notices = Notices(on_change)
        self._pcscd = pcscd.socket_of(worker_environment(module.env))
        self._outdated = False
        self._known: Stamp = ()
        self.seen()

    @property
    def blind(self) -> bool:
        """Whether the kernel does not tell of changes, so that one has to look for them."""
        return self._notices.blind

    def close(self) -> None:
        """Watch no more."""
        self._notices.close()

    def seen(self) -> None:
        """Take note of the files as they are now: the module is about to be looked at."""
        self._known = self._stamp()
        self._outdated = False

    def outdated(self) -> bool:
        """Whether another program has changed something since `seen`."""
        if self._notices.noticed() or self.blind:
            self._outdated = self._stamp() != self._known
        return self._outdated

    def _stamp(self) -> Stamp:
        # Watch before the stat, so that no change between the two is missed.
        self._notices.watch((*files(self._module), self._pcscd))
        return stamp(self._module)


def stamp(module: ModuleSpec) -> Stamp:
    """Return a value that changes whenever the objects of this module's tokens change."""
    return tuple(_stats(files(module)))


def files(module: ModuleSpec) -> Iterator[Path]:
    """Return the module's configuration files, then the files and folders that hold its tokens."""
    name = Path(module.path).name
    find = next((find for part, find in _STORES.items() if part in name), None)
    return iter(()) if find is None else find(module, worker_environment(module.env))


def _softhsm(_module: ModuleSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration, of which SoftHSM reads the first that is there, and the tokens."""
    named = environment.get("SOFTHSM2_CONF")
    names = (named,) if named else _SOFTHSM_CONFIGURATIONS
    places = [_at_home(place, environment) for place in names]
    configuration = next((place for place in places if _is_there(place)), places[0])
    yield from places[: places.index(configuration) + 1]  # an earlier one may be written later
    try:
        found = _TOKEN_DIR.findall(configuration.read_text(errors="replace"))
        folder = Path(found[-1] if found else "/var/lib/softhsm/tokens")
        yield folder
        for token in sorted(folder.iterdir()):
            yield token
            objects = sorted(token.glob("*.object"))
            yield from (file for file in objects if file.name != _SOFTHSM_LOGIN)
    except OSError:
        return  # the module cannot read what we cannot


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
    """Yield the socket that the client module speaks to: a new socket means a new server."""
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
