"""`hsmagent ssh-agent`, and the program `hsmagent-ssh-agent`: ssh-agent(1)'s options and output.

The socket listens before the parent prints or execs, and only then the child imports what is slow
to import: a shell that evaluates our output does not wait for that.
"""

import getopt
import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsmagent import imports
from hsmagent.cli import output, usage
from hsmagent.cli.arguments import Given
from hsmagent.cli.commands import HASHES, SSH_AGENT_OPTIONS
from hsmagent.cli.programs import SSH_AGENT
from hsmagent.config.duration import seconds
from hsmagent.daemon.listening import listen
from hsmagent.errors import ConfigError, HsmAgentError, UsageError
from hsmagent.model import printable
from hsmagent.worker.hardening import PR_SET_PDEATHSIG, forbid_dumps, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hsmagent.config.file import Config

AUTH_SOCK, AGENT_PID = "SSH_AUTH_SOCK", "SSH_AGENT_PID"

STDIN, STDOUT, STDERR = range(3)

ALLOW_REMOTE, NO_RESTRICT, WEBSAFE = "allow-remote-pkcs11", "no-restrict-websafe", "websafe-allow="
FEATURES = (ALLOW_REMOTE, NO_RESTRICT, WEBSAFE)
ANY = ("*",)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. csh: whether to print for csh; None for what $SHELL says.

    agent: the fields of `ssh.options.AgentOptions` that it sets.
    """

    csh: bool | None = None
    kill: bool = False
    clean: bool = False
    debug: bool = False
    foreground: bool = False
    address: str = ""
    agent: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    command: tuple[str, ...] = ()

    @property
    def speaks_csh(self) -> bool:
        """Whether to print for csh."""
        if self.csh is None:
            return not self.command and os.environ.get("SHELL", "").endswith("csh")
        return self.csh


def main() -> None:
    """Run the program `hsmagent-ssh-agent`. Exits with 1 for every failure, as ssh-agent does."""
    output.prepare()
    try:
        sys.exit(run(sys.argv[1:]))
    except HsmAgentError as error:
        print(f"hsmagent-ssh-agent: {error}", file=sys.stderr)
        sys.exit(1)


def command(given: Given) -> int:
    """Run `hsmagent ssh-agent`."""
    return run(given.words)


def run(arguments: list[str]) -> int:
    """Start an agent, or end one (-k). Return the exit status. Raises UsageError."""
    if said := usage.about(SSH_AGENT, arguments):
        return output.tell(SSH_AGENT.name, said)
    try:
        options = parse(arguments)
    except UsageError as error:
        print(f"hsmagent-ssh-agent: {error}; {usage.line(SSH_AGENT)}", file=sys.stderr)
        return 1
    if options.clean:  # nothing to do: our agents' sockets are not in ~/.ssh/agent
        return 0
    return kill(options) if options.kill else start(options)


# -- the command line ------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; what follows the options is the command. Raises UsageError."""
    try:
        given, command = getopt.getopt(list(arguments), *_spellings())
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    values: dict[str, Any] = {"command": tuple(command)}
    for name, value in given:
        if name == "-O":
            values |= _feature(value, values.get("websafe"))
            continue
        field, read = _OPTIONS[name]
        if values.setdefault(field, found := read(value)) != found:
            raise UsageError(f"{name} contradicts an option before it")
    for name in _NO_EFFECT:
        values.pop(name, None)
    agent = {name: values.pop(name) for name in _OF_THE_AGENT if name in values}
    options = Options(agent=agent, **values)
    if options.debug and options.foreground:
        raise UsageError("-d and -D exclude each other")
    if options.command and set(values) & {"csh", "kill", "debug", "foreground"}:
        raise UsageError("a command goes with none of -c, -s, -k, -d and -D")
    return options


def _spellings() -> tuple[str, list[str]]:
    """Return the options of the table as getopt wants them: letters, and words."""
    letters, words = "", []
    for option in SSH_AGENT_OPTIONS:
        for name in option.names:
            if name.startswith("--"):
                words.append(name[2:] + ("=" if option.value else ""))
            else:
                letters += name[1:] + (":" if option.value else "")
    return letters, words


def _feature(name: str, websafe: tuple[str, ...] | None) -> dict[str, Any]:
    """Read an -O. websafe: what an -O before it said; no-restrict-websafe overrules patterns."""
    if name == ALLOW_REMOTE:
        return {"allow_remote_pkcs11": True}
    if name == NO_RESTRICT:
        return {"websafe": ANY}
    if not name.startswith(WEBSAFE):
        raise UsageError(f"unknown -O {printable(name)!r}; there are {', '.join(FEATURES)}")
    given = tuple(name.removeprefix(WEBSAFE).split(","))
    if websafe not in (None, ANY, given):
        raise UsageError("-O websafe-allow contradicts an option before it")
    return {"websafe": websafe if websafe == ANY else given}


def _hash(name: str) -> str:
    if name.lower() not in HASHES:
        raise UsageError(f"unknown hash {printable(name)!r}; there are {', '.join(HASHES)}")
    return name


def life(text: str) -> int:
    """Read a time such as "90", "1h30m" or "2W", in seconds. Raises UsageError."""
    try:
        return seconds(text.lower() + ("s" if text[-1:].isdecimal() else ""))
    except ValueError:
        sentence = f"invalid lifetime {printable(text)!r}; write it as 90, 15m or 1h30m"
        raise UsageError(sentence) from None


# The hash matters for fingerprints that are shown, and we show none. Our sockets are where -T wants
# them, and we do not remove those of others.
_NO_EFFECT = ("hash", "in_tmpdir", "keep_stale")

_OF_THE_AGENT = ("lifetime", "providers", "allow_remote_pkcs11", "websafe")

# option → the field, and how its value is read
_OPTIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "-c": ("csh", lambda _: True),
    "-s": ("csh", lambda _: False),
    "-k": ("kill", lambda _: True),
    "-d": ("debug", lambda _: True),
    "-D": ("foreground", lambda _: True),
    "-a": ("address", str),
    "-t": ("lifetime", life),
    "-P": ("providers", lambda value: tuple(value.split(","))),
    "-E": ("hash", _hash),
    "-T": ("in_tmpdir", lambda _: True),
    "-U": ("keep_stale", lambda _: True),
    "-u": ("clean", lambda _: True),
    "--config": ("config", Path),
}


# -- ending one ------------------------------------------------------------------------------


def kill(options: Options) -> int:
    """End the agent that SSH_AGENT_PID names, and print what forgets it."""
    pid = os.environ.get(AGENT_PID)
    if pid is None:
        raise UsageError(f"{AGENT_PID} is not set, so there is no agent to end")
    if not pid.isdecimal() or int(pid) <= 1:
        raise UsageError(f"{AGENT_PID}={printable(pid)!r} is not the pid of an agent")
    try:
        os.kill(int(pid), signal.SIGTERM)
    except OSError as error:
        raise UsageError(f"cannot end the agent with pid {pid}: {error.strerror}") from None
    forget = "unsetenv {};" if options.speaks_csh else "unset {};"
    say(forget.format(AUTH_SOCK), forget.format(AGENT_PID), f"echo Agent pid {pid} killed;")
    return 0


# -- starting one ----------------------------------------------------------------------------


def start(options: Options) -> int:
    """Listen, tell where, and serve: in the foreground, or in a child of our own."""
    in_foreground = options.debug or options.foreground
    ending = {signal.SIGTERM, signal.SIGHUP} | ({signal.SIGINT} if in_foreground else set())
    # Blocked until the agent handles them: an agent that they ended before would leave its socket.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    folder = private_folder()
    try:
        address = Path(options.address or folder / f"agent.{os.getpid()}").absolute()
        config = configuration(options.config, address)
        listening = listen(address)
    except HsmAgentError:
        folder.rmdir()
        raise
    if in_foreground:
        with suppress(UsageError):
            tell(options, address, None)
        return serve(options, listening, folder, config, ending)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        leave_terminal()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if options.command:
            follow(parent)
        os._exit(serve(options, listening, folder, config, ending))
    listening.close()
    if options.command:
        execute(options.command, address, child, mask)
    try:
        tell(options, address, child)
    except UsageError:
        os.kill(child, signal.SIGTERM)
        raise
    return 0


def private_folder() -> Path:
    """Make the folder for what lives as long as the agent. Raises UsageError."""
    try:
        return Path(tempfile.mkdtemp(prefix="ssh-"))
    except OSError as error:
        raise UsageError(f"cannot make a folder for the agent: {error.strerror}") from None


def configuration(file: Path | None, address: Path) -> "Config | None":
    """Read the file of --config before the agent leaves the terminal. Raises ConfigError."""
    if file is None:
        return None
    from hsmagent.config import file as config

    found = config.load(file, required=True)
    if found.ssh.upstream and os.path.realpath(found.ssh.upstream) == os.path.realpath(address):
        raise ConfigError(f"{file}: upstream in [ssh] is this agent's own socket")
    return found


def tell(options: Options, address: Path, pid: int | None) -> None:
    """Print what a shell evaluates to find the agent. pid: None for our own. Raises UsageError."""
    values = {AUTH_SOCK: shlex.quote(str(address))} | ({AGENT_PID: str(pid)} if pid else {})
    form = "setenv {0} {1};" if options.speaks_csh else "{0}={1}; export {0};"
    lines = [form.format(name, value) for name, value in values.items()]
    say(*lines, f"echo Agent pid {pid or os.getpid()};")


def say(*lines: str) -> None:
    """Print lines, now. Raises UsageError where nobody can read them."""
    try:
        os.write(STDOUT, os.fsencode("".join(f"{line}\n" for line in lines)))
    except OSError as error:
        raise UsageError(f"cannot write to standard output: {error.strerror}") from None


def execute(
    command: Sequence[str], address: Path, pid: int, mask: Collection[signal.Signals | int]
) -> None:
    """Become the command, with the signals in `mask` blocked. The agent ends with us.

    Raises UsageError.
    """
    environment = os.environ | {AUTH_SOCK: str(address), AGENT_PID: str(pid)}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # Python ignores these signals, and the command would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606 - no shell, on purpose
    except OSError as error:
        os.kill(pid, signal.SIGTERM)
        raise UsageError(f"cannot run {printable(command[0])}: {error.strerror}") from None


def leave_terminal() -> None:
    """Become a daemon: a session of our own, and nothing of the caller's held open.

    A shell's backticks wait until the last holder of our stdout has closed it.
    """
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (STDIN, STDOUT, STDERR):
        os.dup2(null, descriptor)
    os.close(null)


def follow(parent: int) -> None:
    """Have the kernel end this process when its parent, which becomes the command, ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def serve(
    options: Options,
    listening: socket.socket,
    folder: Path,
    config: "Config | None",
    ending: Collection[signal.Signals],
) -> int:
    """Serve until one of the signals ends it; remove the socket and the folder."""
    with imports.to_stay():
        import asyncio

        from hsmagent.daemon.private import PrivateAgent

    forbid_dumps()  # only here: the command that the parent becomes may dump core
    logging.basicConfig(
        format="hsmagent-ssh-agent: %(message)s",
        level=logging.DEBUG if options.debug else logging.WARNING,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)

    async def run_agent() -> None:
        await PrivateAgent(folder, config, options.agent).run(listening, ending)

    try:
        asyncio.run(run_agent())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0
