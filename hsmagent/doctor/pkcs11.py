"""Whether PKCS#11 programs are served as the configuration means it."""

from hsmagent.config.file import Config
from hsmagent.doctor.finding import Finding, State
from hsmagent.model import PKCS11_PURPOSES

CHECK = "pkcs11"
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
