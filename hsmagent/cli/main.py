"""The program `hsmagent`, and its quick commands: ask the daemon, print, leave.

They start almost as fast as a bare interpreter, so this module imports next to nothing; what a
command needs beyond that it imports itself.
"""

import io
import os
import sys

from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

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


def run(arguments: "list[str]") -> int:
    """Run one command. Return its exit status; errors are one line on stderr."""
    try:
        status = _dispatch(arguments)
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


def _dispatch(arguments: "list[str]") -> int:
    if not arguments or arguments[0] in {*HELP, "help"}:
        from hsmagent.cli import usage

        _write(usage.overview())
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        from hsmagent import __version__

        _write(f"hsmagent {__version__}\n")
        return 0
    if command in QUICK:
        if not HELP.isdisjoint(rest):
            from hsmagent.cli import usage

            _write(usage.of(command))
            return 0
        return QUICK[command](Options(command, rest))
    return _run_module(command, rest)


# command → the module that holds `run(arguments: list[str]) -> int`, and what comes before those
MODULES = {
    "certs": ("hsmagent.cli.smime", ["certs"]),
    "daemon": ("hsmagent.cli.daemon", []),
    "doctor": ("hsmagent.cli.doctor", []),
    "smime": ("hsmagent.cli.smime", ["smime"]),
    "ssh-agent": ("hsmagent.cli.ssh_agent", []),
}


def _run_module(command: str, arguments: "list[str]") -> int:
    """Run a command that is more than a question to the daemon. Raises UsageError."""
    if command not in MODULES:
        from hsmagent.model import printable

        raise UsageError(f"there is no command {printable(command)!r}; see `hsmagent --help`")
    from importlib import import_module

    module, before = MODULES[command]
    status: int = import_module(module).run([*before, *arguments])
    return status


def _fail(sentence: str, status: int) -> int:
    print(f"hsmagent: {sentence}", file=sys.stderr)
    return status


class Options:
    """The arguments of one quick command: flags are taken by name, the rest by position."""

    def __init__(self, command: str, arguments: "list[str]") -> None:
        self._command = command
        self._arguments = list(arguments)
        self.runtime_dir = self.value("--runtime-dir")

    def flag(self, name: str) -> bool:
        """Take a flag out; say whether it was there."""
        if name not in self._arguments:
            return False
        self._arguments.remove(name)
        return True

    def value(self, name: str) -> str:
        """Take `NAME VALUE` or `NAME=VALUE` out; return VALUE or ""."""
        for index, argument in enumerate(self._arguments):
            if argument.startswith(name + "="):
                del self._arguments[index]
                return argument[len(name) + 1 :]
            if argument == name:
                if index + 1 == len(self._arguments):
                    raise UsageError(f"{name} needs a value")
                del self._arguments[index]
                return self._arguments.pop(index)
        return ""

    def names(self, most: int, least: int = 0) -> "list[str]":
        """Return what is left, which must be `least` to `most` names. Raises UsageError."""
        for argument in self._arguments:
            if argument.startswith("-"):
                raise self._wrong(f"`hsmagent {self._command}` has no option {argument}")
        if not least <= len(self._arguments) <= most:
            raise self._wrong("wrong number of arguments")
        return self._arguments

    def _wrong(self, sentence: str) -> UsageError:
        from hsmagent.cli import usage

        return UsageError(f"{sentence}; {usage.line(self._command)}")


def _ask(options: Options, op: str, timeout: "float | None" = None, **fields: str) -> "Answer":
    daemon = Daemon(options.runtime_dir, timeout)
    try:
        return daemon.call(op, **fields)
    finally:
        daemon.close()


# -- the commands ----------------------------------------------------------------------------


def _status(options: Options) -> int:
    return _show(options, "status")


def _keys(options: Options) -> int:
    return _show(options, "keys")


def _show(options: Options, what: str, **fields: str) -> int:
    as_json = options.flag("--json")
    options.names(0)
    answer = _ask(options, what, AT_HAND, **fields)
    if as_json:
        import json

        _write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
        return 0
    from hsmagent.cli import show

    _write(getattr(show, what)(answer))
    return 0


def _log(options: Options) -> int:
    return _show(options, "log", since=options.value("--since"))


def _pubkey(options: Options) -> int:
    pem, _ssh = options.flag("--pem"), options.flag("--ssh")
    [name] = options.names(1, 1)
    answer = _ask(options, "pubkey", AT_HAND, key=name)
    text = answer["pem" if pem else "ssh"]
    if text is None:
        raise HsmAgentError("ssh has no name for this kind of key; --pem shows it")
    _write(text.rstrip("\n") + "\n")
    return 0


def _unlock(options: Options) -> int:
    from hsmagent.cli import terminal

    from_stdin = options.flag("--stdin")
    last_try = options.flag("--last-try")
    name = "".join(options.names(1))
    daemon = Daemon(options.runtime_dir)
    try:
        asked = daemon.call("unlock", token=name)
        if asked["logged_in"]:
            print(f"{asked['token']} is unlocked already")
            return 0
        if asked["pin_state"] == "final-try" and not last_try:
            if from_stdin:
                raise HsmAgentError(f"{asked['warning']} Add --last-try if you are sure")
            last_try = terminal.agree(asked["warning"] + " Go on?")
            if not last_try:
                raise HsmAgentError("nothing was tried")
        daemon.exchange(terminal.pin_frame(asked, from_stdin=from_stdin, last_try=last_try))
    finally:
        daemon.close()
    print(f"{asked['token']} is unlocked")
    return 0


def _lock(options: Options) -> int:
    answer = _ask(options, "lock", token="".join(options.names(1)))
    print("locked: " + ", ".join(answer["tokens"]) if answer["tokens"] else "no token was unlocked")
    return 0


def _forget_pin(options: Options) -> int:
    answer = _ask(options, "forget_pin", token="".join(options.names(1)))
    print(f"no PIN of {answer['token']} is kept")
    return 0


QUICK: "dict[str, Callable[[Options], int]]" = {
    "status": _status,
    "keys": _keys,
    "pubkey": _pubkey,
    "unlock": _unlock,
    "lock": _lock,
    "log": _log,
    "forget-pin": _forget_pin,
}
