"""The program `hsmagent`, and its quick commands: ask the daemon, print, leave.

They start almost as fast as a bare interpreter, so this module imports next to nothing; what a
command needs beyond that it imports itself.
"""

import io
import os
import sys

from hsmagent import __version__
from hsmagent.cli import arguments, commands
from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hsmagent.cli.arguments import Given

    Answer = dict[str, Any]

HELP = {"--help", "-h"}
# Seconds for what the daemon has at hand; it may have been started by our asking.
AT_HAND = 30.0


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed or refused, 2 wrong usage."""
    # In a locale without UTF-8 a letter that it lacks must be neither a traceback nor lost.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(words: "Sequence[str]") -> int:
    """Run one command. Return its exit status; errors are one line on stderr."""
    try:
        status = _dispatch(words)
        _write("")
    except UsageError as error:
        return _fail(str(error), 2)
    except HsmAgentError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        _drop_output()  # who read it has gone, and knows
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _write(text: str) -> None:
    """Print, and flush: what goes wrong is told here, and not by Python while it leaves."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise HsmAgentError(f"the output cannot be written: {error.strerror}") from None


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: "Sequence[str]") -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    command, rest = commands.find(words)
    if command is None:
        return _without_command(words)
    if not HELP.isdisjoint(rest[:1] if command.own_words else rest):
        from hsmagent.cli import usage

        _write(usage.of(command))
        return 0
    return command.load()(arguments.parse(command, rest))


def _without_command(words: "Sequence[str]") -> int:
    """Say what there is: of all commands, or of one group's. Raises UsageError."""
    from hsmagent.cli import usage

    match words:
        case []:
            _write(usage.overview())
            return 2
        case ["-h" | "--help", *_]:
            _write(usage.overview())
        case ["--version", *_]:
            _write(f"hsmagent {__version__}\n")
        case [group, "-h" | "--help", *_] if group in commands.GROUPS:
            _write(usage.group(group))
        case [group] if group in commands.GROUPS:
            raise UsageError(f"say what `hsmagent {group}` is to do; see `hsmagent {group} --help`")
        case [group, verb, *_] if group in commands.GROUPS:
            raise _unknown(f"{group} {verb}", f"hsmagent {group}")
        case [word, *_]:
            raise _unknown(word, "hsmagent")
    return 0


def _unknown(named: str, where: str) -> UsageError:
    from hsmagent.model import printable

    return UsageError(f"there is no command {printable(named)!r}; see `{where} --help`")


def _fail(sentence: str, status: int) -> int:
    print(f"hsmagent: {sentence}", file=sys.stderr)
    return status


def _ask(given: "Given", op: str, timeout: "float | None" = None, **fields: str) -> "Answer":
    daemon = Daemon(given.value("--runtime-dir"), timeout)
    try:
        return daemon.call(op, **fields)
    finally:
        daemon.close()


# -- the quick commands ----------------------------------------------------------------------


def status(given: "Given") -> int:
    """`hsmagent status`."""
    return _show(given, "status")


def keys(given: "Given") -> int:
    """`hsmagent keys`."""
    return _show(given, "keys")


def log(given: "Given") -> int:
    """`hsmagent log`."""
    return _show(given, "log", since=given.value("--since"))


def _show(given: "Given", what: str, **fields: str) -> int:
    answer = _ask(given, what, AT_HAND, **fields)
    if given.flag("--json"):
        import json

        _write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
        return 0
    from hsmagent.cli import show

    _write(getattr(show, what)(answer))
    return 0


def pubkey(given: "Given") -> int:
    """`hsmagent pubkey`."""
    answer = _ask(given, "pubkey", AT_HAND, key=given.word)
    text = answer["pem" if given.flag("--pem") else "ssh"]
    if text is None:
        raise HsmAgentError("ssh has no name for this kind of key; --pem shows it")
    _write(text.rstrip("\n") + "\n")
    return 0


def unlock(given: "Given") -> int:
    """`hsmagent unlock`."""
    from hsmagent.cli import terminal

    from_stdin = given.flag("--stdin")
    last_try = given.flag("--last-try")
    daemon = Daemon(given.value("--runtime-dir"))
    try:
        asked = daemon.call("unlock", token=given.word)
        if asked["logged_in"]:
            _write(f"{asked['token']} is unlocked already\n")
            return 0
        if asked["pin_state"] == "final-try" and not last_try:
            if from_stdin:
                raise HsmAgentError(f"{asked['warning']} Add --last-try if you are sure")
            last_try = terminal.agree(asked["warning"] + " Go on?", "ask in; use --last-try")
            if not last_try:
                raise HsmAgentError("nothing was tried")
        daemon.exchange(terminal.pin_frame(asked, from_stdin=from_stdin, last_try=last_try))
    finally:
        daemon.close()
    _write(f"{asked['token']} is unlocked\n")
    return 0


def lock(given: "Given") -> int:
    """`hsmagent lock`."""
    locked = _ask(given, "lock", token=given.word)["tokens"]
    _write(f"locked: {', '.join(locked)}\n" if locked else "no token was unlocked\n")
    return 0


def forget_pin(given: "Given") -> int:
    """`hsmagent forget-pin`."""
    answer = _ask(given, "forget_pin", token=given.word)
    _write(f"no PIN of {answer['token']} is kept\n")
    return 0
