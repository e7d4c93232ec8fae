"""`hsmagent setup`: puts units and shell snippets where this person's session finds them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from hsmagent import __version__
from hsmagent.cli import terminal
from hsmagent.cli.arguments import Given
from hsmagent.cli.output import write
from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.scd import stubs
from hsmagent.setup import gnupg
from hsmagent.setup.home import Home, own_program, shipped
from hsmagent.setup.plan import Step, Verb, carry_out, placing, removing
from hsmagent.setup.record import Record
from hsmagent.setup.session import Session, others
from hsmagent.setup.wanted import GNUPG_AGENT, NO_NETWORK, PKCS11_MODULE, Choices, wanted

_NO_TERMINAL = "ask in, so nothing was done; use --yes, or --dry-run to see what would be"
ANSWER = 10.0  # seconds for the agent to say its version


def run(given: Given) -> int:
    """Show the steps, ask, and take them. Return 1 if a file had to stay as it is."""
    home = Home.of(os.environ)
    record = Record.read(home.state / "hsmagent" / "setup.json")
    remove = given.flag("--remove")
    steps = removing(record) if remove else _placing(given, home, record)
    dry, asks = given.flag("--dry-run"), bool(steps) and not given.flag("--yes")
    if asks and not dry:
        # This raises before a list is shown to which nobody could agree.
        with terminal.opened(_NO_TERMINAL):
            pass
    write("".join(f"{line}\n" for line in _told(steps, home)))
    if dry:
        write("Nothing was done.\n" if steps else "There is nothing to do.\n")
        return 0
    if asks and not terminal.agree("Go on?", _NO_TERMINAL):
        raise HsmAgentError("nothing was done")
    try:
        told = _remove(steps, record, home) if remove else _place(steps, record, home)
    except OSError as error:
        raise HsmAgentError(f"{error.filename}: {error.strerror}; run setup again") from None
    write("".join(f"{line}\n" for line in told))
    return 1 if any(step.verb is Verb.LEAVE for step in steps) else 0


def _placing(given: Given, home: Home, record: Record) -> list[Step]:
    choices = Choices(
        no_network=_chosen(given, record, "--no-network", "--network", NO_NETWORK),
        pkcs11=_chosen(given, record, "--pkcs11", "--no-pkcs11", PKCS11_MODULE),
        gnupg=_chosen(given, record, "--gnupg", "--no-gnupg", GNUPG_AGENT),
    )
    named = given.value("--program")
    program = Path(os.path.abspath(named)) if named else own_program(os.environ)  # noqa: PTH100
    return placing(wanted(home, shipped(), program, choices), record)


def _chosen(given: Given, record: Record, yes: str, no: str, mark: str) -> bool:
    """Return a choice: as given now, else as in an earlier run, which wrote a file of this name."""
    if given.flag(yes) and given.flag(no):
        raise UsageError(f"{no} and {yes} say the opposite; give one of them")
    before = any(name.endswith(mark) for name in (*record.written, *record.lines))
    return given.flag(yes) or (before and not given.flag(no))


def _told(steps: Iterable[Step], home: Home) -> Iterator[str]:
    """Yield a line for each step, one for those of a folder, as a shell would write them."""

    def alike(step: Step) -> tuple[Verb, Path, str]:
        return step.verb, step.path.parent, step.why

    for (verb, folder, why), group in groupby(steps, alike):
        names = [step.path.name for step in group]
        name = names[0] if len(names) == 1 else f"{{{','.join(names)}}}"
        yield f"  {verb:22} {home.short(folder / name)}" + (f"  ({why})" if why else "")


# -- putting in place ------------------------------------------------------------------------


def _place(steps: Sequence[Step], record: Record, home: Home) -> list[str]:
    """Take the steps, start the sockets; return what is left for the person to do."""
    session = Session(os.environ)
    session.stop(_sockets(step.path.name for step in steps if step.verb is Verb.REMOVE))
    for step in steps:
        carry_out(step, record)
    told = list(others(home))
    if home.shell == "zsh":
        folder = home.short(home.data / "zsh" / "site-functions")
        told.append(f"For completions, put `fpath+=({folder})` before compinit in ~/.zshrc.")
    if not session.runs() or not session.start(_sockets(record.written)):
        told.append("systemd's user manager does not answer. Log in anew; without systemd, have")
        told.append(f"your session start {_programs(record)}.")
    else:
        told += _running(session)
    if _serves_pkcs11(record):
        told.append("PKCS#11 programs are served once the configuration says so: docs/pkcs11.md.")
        told.append("Then `hsmagent doctor` says which of them see a token twice, and what to do.")
    told += _served_gnupg(steps, record, home)
    told.append(f"Examples for ssh and mail programs are in {shipped() / 'contrib'}.")
    return told


def _serves_pkcs11(record: Record) -> bool:
    return any(name.endswith(PKCS11_MODULE) for name in record.written)


def _programs(record: Record) -> str:
    """Return what a session without systemd has to start."""
    return "`hsmagent daemon`" + (" and `hsmagent pkcs11`" if _serves_pkcs11(record) else "")


def _running(session: Session) -> Iterator[str]:
    if session.agent_runs() and _is_older():
        yield "The agent that runs is of another version: systemctl --user restart hsmagent"
    yield "The agent is there, and starts when it is first asked. This shell finds it after:"
    yield "  export SSH_AUTH_SOCK=$XDG_RUNTIME_DIR/hsmagent/ssh.sock"
    yield "Log in anew, and everything does. `hsmagent doctor` says if something is in the way."


def _is_older() -> bool:
    try:
        with Daemon("", ANSWER) as daemon:
            return bool(daemon.call("status")["version"] != __version__)
    except HsmAgentError:
        return False


def _sockets(names: Iterable[str]) -> list[str]:
    return sorted({Path(name).name for name in names if name.endswith(".socket")})


def _served_gnupg(steps: Sequence[Step], record: Record, home: Home) -> Iterator[str]:
    """Have GnuPG's agent take in what was changed; it learns our keys, or they are forgotten."""
    changes = (step.verb is not Verb.LEAVE and step.path.name == GNUPG_AGENT for step in steps)
    changed = any(changes)
    if changed:
        gnupg.end_agent(os.environ)
    if any(name.endswith(GNUPG_AGENT) for name in record.lines):
        yield from gnupg.learn(os.environ)
    elif changed and stubs.forget(home.gnupg):
        yield "GnuPG has forgotten your tokens' keys; their certificates stay with it."


# -- taking away -----------------------------------------------------------------------------


def _remove(steps: Sequence[Step], record: Record, home: Home) -> list[str]:
    session = Session(os.environ)
    session.stop(_sockets(record.written), agent=True)
    for step in steps:
        carry_out(step, record)
    record.clear()
    session.forget()
    told = [*_served_gnupg(steps, record, home)]
    told += ["Removed. Log in anew, so that SSH_AUTH_SOCK is forgotten everywhere."]
    if record.path.parent.exists():
        told.append(f"What the agent noted of its use is in {home.short(record.path.parent)}.")
    return told
