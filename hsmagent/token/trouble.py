"""Why a module cannot start, where the files that it needs tell more than the module does."""

import grp
import os
import stat
from pathlib import Path

from hsmagent.model import ModuleSpec
from hsmagent.token import stores
from hsmagent.worker.process import worker_environment

_TPM_DEVICES = (Path("/dev/tpmrm0"), Path("/dev/tpm0"))
_TPM_ELSEWHERE = ("TPM2_PKCS11_TCTI", "TCTI", "TPM2TOOLS_TCTI")
_OTHERS = "name files of your own in the module's env"


def why(module: ModuleSpec, devices: tuple[Path, ...] = _TPM_DEVICES) -> str:
    """Return what is missing or unreadable and the remedy, or "" if the files tell nothing."""
    environment = worker_environment(module.env)
    elsewhere = any(environment.get(name) for name in _TPM_ELSEWHERE)
    if "tpm2_pkcs11" in Path(module.path).name and not elsewhere:
        there = next((device for device in devices if device.exists()), None)
        if there is None:
            return "there is no TPM in this machine; leave the module out, or name others"
        if not os.access(there, os.R_OK | os.W_OK):
            return _unreadable(there, _OTHERS)
    for path in stores.files(module):
        closed = _first_closed(path)
        if closed is not None:
            return _unreadable(closed, _own_files(module))
    return ""


def _first_closed(path: Path) -> Path | None:
    """Return the topmost, of a file and its folders, that is there but closed to us, or None."""
    for part in (*reversed(path.parents), path):
        try:
            status = part.stat()
        except OSError:
            return None  # it is not there, which is no question of permissions
        wanted = os.X_OK if stat.S_ISDIR(status.st_mode) else os.R_OK
        if not os.access(part, wanted):
            return part
    return None


def _own_files(module: ModuleSpec) -> str:
    """Return how to give the module files of one's own, as the end of a sentence."""
    named = worker_environment(module.env).get("SOFTHSM2_CONF")
    if named or "softhsm" not in Path(module.path).name:
        return _OTHERS
    return f"write {stores.SOFTHSM_OWN} with a directories.tokendir of your own"


def _unreadable(path: Path, otherwise: str) -> str:
    """Return the sentence that a file is closed to us, with the remedies. otherwise: one more."""
    sentence = f"{path} cannot be read"
    status = path.stat()
    if not status.st_mode & (stat.S_IRGRP | stat.S_IXGRP):
        return f"{sentence}: ask its owner for permission"
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return (
        f"{sentence}: join its group with `sudo usermod --append --groups {group} $USER` and log"
        f" in anew, or {otherwise}"
    )
