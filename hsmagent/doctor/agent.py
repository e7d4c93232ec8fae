"""Whether the daemon is there, and whether ssh and git find it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hsmagent import __version__
from hsmagent.control.client import Daemon
from hsmagent.doctor import tokens
from hsmagent.doctor.finding import (
    COMMAND_TIMEOUT,
    Finding,
    State,
    Status,
    Surroundings,
    output_of,
    run,
)
from hsmagent.errors import HsmAgentError

START = "start it with `systemctl --user start hsmagent` or `hsmagent daemon`"
EXPORT = "export SSH_AUTH_SOCK={}"

AGAIN = "run `hsmagent setup`, and log in anew"
MASK = "systemctl --user mask {}, and log in anew"
NO_GPG = f"take enable-ssh-support out of ~/.gnupg/gpg-agent.conf; {AGAIN}"
# Part of a socket's path → whose socket it is, and how to get SSH_AUTH_SOCK back from it.
OTHERS = {
    "/keyring/": ("gnome-keyring", AGAIN),
    "/gcr/": ("gcr-ssh-agent", MASK.format("gcr-ssh-agent.socket gcr-ssh-agent.service")),
    "/gnupg/": ("gpg-agent", NO_GPG),
    # To disable the socket would not do: a desktop's session starts the service, which starts it.
    "/openssh_agent": ("OpenSSH's agent", MASK.format("ssh-agent.socket ssh-agent.service")),
    "/ssh-": ("OpenSSH's agent", "take ssh-agent out of your shell's or session's start-up files"),
}
UPSTREAM = "; to keep its keys too, name its socket as [ssh] upstream in the configuration"


def ask_daemon(where: Surroundings) -> tuple[Finding, Status | None]:
    """Say whether the daemon answers, and what it says of its tokens and modules."""
    if where.no_runtime_dir:
        return Finding("daemon", State.BAD, where.no_runtime_dir), None
    try:
        daemon = Daemon(str(where.runtime_dir), COMMAND_TIMEOUT)
    except HsmAgentError:
        sentence = f"no daemon answers in {where.runtime_dir}"
        return Finding("daemon", State.BAD, sentence, START), None
    try:
        with daemon:
            status = daemon.call("status")
            status["listed"] = daemon.call("keys")["keys"]
    except HsmAgentError as error:
        remedy = "see its log: journalctl --user --unit hsmagent"
        return Finding("daemon", State.BAD, str(error), remedy), None
    if status["version"] != __version__:
        sentence = f"the daemon is version {status['version']}, this is {__version__}"
        remedy = "systemctl --user restart hsmagent"
        return Finding("daemon", State.WARN, sentence, remedy), status
    return Finding("daemon", State.OK, f"the daemon runs (pid {status['pid']})"), status


def ssh_auth_sock(where: Surroundings) -> Finding:
    """Say whether SSH_AUTH_SOCK names our socket."""
    check = "ssh-auth-sock"
    ours = where.ssh_socket
    export = EXPORT.format(ours) + ", and run `hsmagent setup`"
    named = where.env.get("SSH_AUTH_SOCK", "")
    if not named:
        return Finding(check, State.BAD, "SSH_AUTH_SOCK is not set: ssh asks no agent", export)
    if _same(Path(named), ours):
        return Finding(check, State.OK, f"SSH_AUTH_SOCK is {ours}")
    for part, (whose, remedy) in OTHERS.items():
        if part in named:
            sentence = f"SSH_AUTH_SOCK is the socket of {whose}, {named}"
            return Finding(check, State.BAD, sentence, f"{remedy}{UPSTREAM}")
    sentence = f"SSH_AUTH_SOCK is another agent's, {named}"
    return Finding(check, State.BAD, sentence, EXPORT.format(ours) + UPSTREAM)


def programs(where: Surroundings) -> Finding | None:
    """Say whether the PATH has several `hsmagent`, of which the first one wins."""
    folders = where.env.get("PATH", os.defpath).split(os.pathsep)
    found = (Path(folder, "hsmagent") for folder in folders if folder)
    real = {path.resolve(): path for path in reversed([p for p in found if os.access(p, os.X_OK)])}
    if len(real) < 2:  # noqa: PLR2004 - two are one too many
        return None
    first, *others = reversed(real.values())
    sentence = f"the PATH has {first}, which is run, and {', '.join(map(str, others))} as well"
    return Finding("program", State.WARN, sentence, "remove those that you do not use")


async def ssh_config(where: Surroundings) -> Finding | None:
    """Say whether ~/.ssh/config sends ssh to another agent."""
    printed = await output_of(["ssh", "-G", "localhost"], where.env)
    settings = dict(line.partition(" ")[::2] for line in (printed or "").splitlines())
    named = settings.get("identityagent", "SSH_AUTH_SOCK")
    if named in ("SSH_AUTH_SOCK", str(where.ssh_socket)):
        return None
    if named != "none" and _same(_expand(named), where.ssh_socket):
        return None
    sentence = f"ssh's own configuration names another agent: IdentityAgent {named}"
    remedy = f"take that line out of ~/.ssh/config, or write {where.ssh_socket} there"
    return Finding("ssh-config", State.BAD, sentence, remedy)


async def lists_keys(where: Surroundings, status: Status) -> Finding:
    """Ask for the keys as ssh does. status: what the daemon says of them."""
    check = "ssh"
    if shutil.which("ssh-add", path=where.env.get("PATH")) is None:
        return Finding(check, State.BAD, "ssh-add is not installed", "install openssh-client")
    env = dict(where.env) | {"SSH_AUTH_SOCK": str(where.ssh_socket)}
    ended = await run(["ssh-add", "-l"], env)
    if ended is None:
        return Finding(check, State.BAD, "the agent does not answer ssh-add", START)
    exit_status, printed = ended
    if exit_status not in (0, 1):
        return Finding(check, State.BAD, "ssh-add cannot reach the agent", START)
    count = len(printed.splitlines()) if exit_status == 0 else 0
    settings = await output_of(["ssh", "-G", "localhost"], where.env)
    only = "identitiesonly yes" in (settings or "").splitlines()
    return tokens.listed(count, status, identities_only=only)


def per_host(where: Surroundings) -> Iterator[Finding]:
    """Yield a finding for each IdentityAgent in ~/.ssh/config that is another agent's."""
    path = Path(where.env.get("HOME", "~")).expanduser() / ".ssh/config"
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        word, _, value = line.strip().replace("=", " ", 1).partition(" ")
        named = value.strip().strip('"')
        if word.lower() != "identityagent" or named == "SSH_AUTH_SOCK":
            continue
        if named == "none" or not _same(_expand(named), where.ssh_socket):
            sentence = f"~/.ssh/config, line {number}, has some hosts ask another agent: {named}"
            remedy = f"if that is not meant, write IdentityAgent {where.ssh_socket} there"
            yield Finding("ssh-config", State.WARN, sentence, remedy)


def _expand(name: str) -> Path:
    for token, value in (("%i", str(os.getuid())), ("%d", str(Path.home())), ("%%", "%")):
        name = name.replace(token, value)
    return Path(os.path.expandvars(name)).expanduser()


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
