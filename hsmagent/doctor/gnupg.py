"""Whether GnuPG is served as the configuration means it: its agent, key stubs and trusted roots."""

from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.control.client import FACE, Daemon
from hsmagent.doctor.finding import COMMAND_TIMEOUT, Finding, State, Surroundings
from hsmagent.errors import HsmAgentError
from hsmagent.folders import gnupg_folder
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import PurposeKind, printable
from hsmagent.scd import stubs
from hsmagent.scd.card import ROOT, Card

CHECK = "gnupg"
OPTION = "scdaemon-program"
PROGRAM = "hsmagent-scd"
SETUP = "run `hsmagent setup --gnupg`"
SYSTEM_TRUSTLIST = Path("/etc/gnupg/trustlist.txt")


def served(where: Surroundings, settings: Config) -> list[Finding]:
    """Look at GnuPG's set-up; find nothing where no key is open to it and it does not run us."""
    meant = any(PurposeKind.GNUPG in (entry.allow or ()) for entry in settings.keys)
    named = _scdaemon(where)
    ours = Path(named).name == PROGRAM
    if ours and not meant:
        sentence = "GnuPG's agent takes hsmagent for its scdaemon, but sees no key"
        return [Finding(CHECK, State.WARN, sentence, 'name "gnupg" in the allow of a [[key]]')]
    if not meant:
        return []
    if not ours:
        of = f", but {printable(named)}" if named else ""
        sentence = f"a key is allowed to GnuPG, whose agent does not run {PROGRAM}{of}"
        remedy = f"take {OPTION} out of {_home(where)}/gpg-agent.conf, and {SETUP}"
        return [Finding(CHECK, State.WARN, sentence, remedy if named else SETUP)]
    if not Path(named).is_file():
        sentence = f"GnuPG's agent is to run {printable(named)}, which is not there"
        return [Finding(CHECK, State.BAD, sentence, SETUP)]
    try:
        card = _card(where)
    except HsmAgentError as error:
        return [Finding(CHECK, State.WARN, f"GnuPG's keys cannot be looked at: {error}")]
    found = [*_stubs(where, card), *_roots(where, card)]
    return found or [Finding(CHECK, State.OK, "GnuPG is served, and knows its keys")]


def _home(where: Surroundings) -> Path:
    return Path(gnupg_folder(where.env))


def _scdaemon(where: Surroundings) -> str:
    """Return what the agent's configuration names as its scdaemon, or ""."""
    named = ""
    for line in _text(_home(where) / "gpg-agent.conf").splitlines():
        word, _, value = line.strip().partition(" ")
        if word == OPTION:
            named = value.strip()
    return named


def _card(where: Surroundings) -> Card:
    """Return what GnuPG sees. Raises HsmAgentError."""
    with Daemon(str(where.runtime_dir), COMMAND_TIMEOUT, role=FACE) as daemon:
        daemon.call("client", **{"for": "gnupg"})
        return Card().following(daemon.call("tokens"))


def _stubs(where: Surroundings, card: Card) -> Iterator[Finding]:
    """Say which keys GnuPG has no stub for, or has a stub for that names another card."""
    for key in card.present:
        stub = stubs.read(_home(where), key.grip)
        name = printable(key.key.label or key.grip)
        if not stub:
            remedy = "gpgsm --learn-card"
            yield Finding(CHECK, State.WARN, f"GnuPG has not learned the key {name}", remedy)
        elif not stubs.is_ours(stub):
            sentence = f"GnuPG knows the key {name} as one of its own, or of another card"
            remedy = f"rm {stubs.path(_home(where), key.grip)}, and gpgsm --learn-card"
            yield Finding(CHECK, State.WARN, sentence, remedy)


def _roots(where: Surroundings, card: Card) -> Iterator[Finding]:
    """Say which of the tokens' roots GnuPG does not trust: it would not sign with their keys."""
    lists = (_text(path) for path in (_home(where) / "trustlist.txt", SYSTEM_TRUSTLIST))
    trusted = "\n".join(lists).replace(":", "").upper()
    for kept in card.certificates.values():
        if kept.kind != ROOT:
            continue
        fingerprint = sha1(kept.der).hexdigest().upper()  # noqa: S324 - a name
        if fingerprint not in trusted:
            sentence = f"GnuPG does not trust the root {printable(Certificate(kept.der).name)}"
            remedy = f"echo '{fingerprint} S' >> {_home(where)}/trustlist.txt"
            yield Finding(CHECK, State.WARN, sentence, remedy)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
