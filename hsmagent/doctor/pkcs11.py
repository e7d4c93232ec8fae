"""Whether PKCS#11 programs are served as the configuration means it."""

import os
from pathlib import Path

from hsmagent.config.discovery import USER_MODULES, modules, registered_for
from hsmagent.config.file import Config
from hsmagent.doctor.finding import Finding, State, Surroundings
from hsmagent.model import PKCS11_PURPOSES

CHECK = "pkcs11"
OURS = "hsmagent.module"  # which `hsmagent setup --pkcs11` writes
WORDS = " or ".join(f'"{kind}"' for kind in sorted(PKCS11_PURPOSES))


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


def seen_twice(where: Surroundings, settings: Config) -> Finding | None:
    """Say whose tokens programs of p11-kit see twice: by themselves, and through us."""
    config = where.home_folder("XDG_CONFIG_HOME", ".config")
    if not (settings.pkcs11.enabled and Path(config, USER_MODULES, OURS).is_file()):
        return None
    ours = {os.path.realpath(module.path) for module in modules(settings)}
    found = [
        each.file
        for each in registered_for(config)
        if each.is_for_all and os.path.realpath(each.path) in ours
    ]
    if not found:
        return None
    return Finding(
        CHECK,
        State.WARN,
        "programs of GnuTLS and p11-kit see the same tokens twice, here and by themselves, with a"
        f" login of their own: {', '.join(found)}",
        f"write the line `enable-in: hsmagent` in files of these names in {config}/{USER_MODULES}",
    )
