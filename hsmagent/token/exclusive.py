"""A card for ourselves while we are logged in: OpenSC's lock_login, by a configuration of ours.

A login belongs to the card: every program that speaks to the card meanwhile, and sends no SELECT,
acts under it (opensc.conf(5), lock_login). With lock_login OpenSC holds a PC/SC transaction from
C_Login to C_Logout, so that other programs wait until then.

Of two blocks of one kind OpenSC takes the first. So ours goes in front of a copy of the person's
own file, unless that has such a block: then the person has to write the line into it.
"""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from hsmagent.errors import ConfigError
from hsmagent.model import ModuleSpec

VARIABLE = "OPENSC_CONF"
SYSTEM = Path("/etc/opensc/opensc.conf")
OURS = """\
# Written by hsmagent, to have the card for itself; changes here are lost.
app opensc-pkcs11 {
	pkcs11 {
		lock_login = true;
	}
}
"""
IN_THE_WAY = re.compile(r"^\s*(app\s+\"?opensc-pkcs11\"?\s*\{|pkcs11\s*\{)", re.MULTILINE)
LOCKED = re.compile(r"^\s*lock_login\s*=\s*true\s*;", re.MULTILINE)


def is_opensc(path: str) -> bool:
    """Whether a module is OpenSC's, by its name: only OpenSC has lock_login."""
    return "opensc" in Path(path).name


def applied(spec: ModuleSpec, folder: Path) -> ModuleSpec:
    """Return the module as the configuration wants it: `alone` where it says `exclusive`.

    Raises ConfigError where that cannot be done, since the person relies on it.
    """
    if not spec.exclusive:
        return spec
    try:
        return alone(spec, folder)
    except ConfigError as error:
        raise ConfigError(f"exclusive in [[module]]: {error}") from None


def alone(spec: ModuleSpec, folder: Path) -> ModuleSpec:
    """Return the module with the environment in which it keeps a card to itself.

    folder: where the configuration is written. Raises ConfigError, with the reason.
    """
    if not is_opensc(spec.path):
        raise ConfigError(f"only OpenSC keeps a card to itself, and {spec.path} is another")
    named = dict(spec.env).get(VARIABLE) or os.environ.get(VARIABLE)
    base = Path(named) if named else SYSTEM
    try:
        theirs = base.read_text(encoding="utf-8")
    except FileNotFoundError:
        theirs = ""
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"cannot read {base}") from None
    if LOCKED.search(theirs):
        return spec
    if IN_THE_WAY.search(theirs):
        raise ConfigError(f"{base} sets pkcs11 itself; write lock_login = true; there")
    name = hashlib.sha256(str(base).encode()).hexdigest()[:8]
    file = folder / f"opensc-{name}.conf"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(OURS + theirs, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error}") from None
    others = tuple(pair for pair in spec.env if pair[0] != VARIABLE)
    return replace(spec, env=(*others, (VARIABLE, str(file))))
