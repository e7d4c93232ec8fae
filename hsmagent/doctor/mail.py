"""The identities that sign mail: whether recipients will accept their signatures."""

from datetime import UTC, datetime

from hsmagent.control.client import MAIL, Daemon
from hsmagent.control.values import to_key
from hsmagent.doctor.finding import COMMAND_TIMEOUT, Finding, State, Surroundings
from hsmagent.errors import HsmAgentError
from hsmagent.mail import identity, store

CHECK = "mail"


def identities(where: Surroundings) -> list[Finding]:
    """Ask the daemon for the keys as mail programs do, and judge each certificate for signing."""
    try:
        daemon = Daemon(str(where.runtime_dir), COMMAND_TIMEOUT, role=MAIL)
    except HsmAgentError as error:
        return [Finding(CHECK, State.BAD, str(error), "systemctl --user restart hsmagent")]
    try:
        with daemon:
            keys = [to_key(each) for each in daemon.call("keys")["keys"]]
    except HsmAgentError as error:
        return [Finding(CHECK, State.BAD, str(error), "see `journalctl --user --unit hsmagent`")]
    kept = store.default()
    files = [entry.certificate for entry in kept.entries()]
    problems = identity.check(keys, datetime.now(UTC), kept.leads_to_root, files)
    return [_finding(each.problem) for each in problems]


def _finding(problem: str) -> Finding:
    sentence, _, remedy = problem.partition("; ")
    return Finding(CHECK, State.WARN, sentence, remedy)
