"""The program `hsmagent`, and its quick commands: ask the daemon, print, leave.

They start almost as fast as a bare interpreter, so this module imports next to nothing; what a
command needs beyond that it imports itself.
"""

import os
import sys

from hsmagent.client import Daemon
from hsmagent.errors import HsmAgentError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

USAGE = """\
usage: hsmagent COMMAND [options]

Tokens and keys
  status [--json]              tokens, login state and time left, PIN state
  keys [--json]                every key with its SSH line and certificates
  pubkey KEY [--ssh | --pem]   one public key, for authorized_keys or a CA
  unlock [TOKEN] [--stdin]     give the PIN in this terminal (or as one line of stdin)
  lock [TOKEN]                 log out of one token, or of all
  forget-pin [TOKEN]           delete the PIN that was kept in the desktop's keyring
  log [--since T] [--json]     who used which key for what, and what was refused
"""

USAGE_END = """
KEY and TOKEN are a PKCS#11 URI, a fingerprint (SHA256:…), a label or a serial number.
Every command takes --runtime-dir D, where the daemon's sockets are
(default $XDG_RUNTIME_DIR/hsmagent).

Exit status: 0 done, 1 failed or refused, 2 wrong usage.
"""


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed or refused, 2 wrong usage."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: "list[str]") -> int:
    """Run one command. Return its exit status; errors are one line on stderr."""
    try:
        return _dispatch(arguments)
    except UsageError as error:
        return _fail(str(error), 2)
    except HsmAgentError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: "list[str]") -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        from hsmagent import __version__

        print(f"hsmagent {__version__}")
        return 0
    if command in QUICK:
        if rest in (["--help"], ["-h"]):
            print(usage(), end="")
            return 0
        return QUICK[command](Options(command, rest))
    from hsmagent import commands

    return commands.run(command, rest)


def usage() -> str:
    """Return the text of `hsmagent --help`."""
    from hsmagent.commands import USAGE as SLOW

    return USAGE + SLOW + USAGE_END


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
                raise UsageError(f"`hsmagent {self._command}` has no option {argument}")
        if not least <= len(self._arguments) <= most:
            raise UsageError(f"wrong number of arguments for `hsmagent {self._command}`")
        return self._arguments


def _ask(options: Options, op: str, **fields: object) -> "dict[str, Any]":
    daemon = Daemon(options.runtime_dir)
    try:
        return daemon.call(op, **fields)
    finally:
        daemon.close()


# -- the commands ----------------------------------------------------------------------------


def _status(options: Options) -> int:
    return _show(options, "status")


def _keys(options: Options) -> int:
    return _show(options, "keys")


def _show(options: Options, what: str, **fields: object) -> int:
    as_json = options.flag("--json")
    options.names(0)
    answer = _ask(options, what, **fields)
    if as_json:
        import json

        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    from hsmagent import show

    print(getattr(show, what)(answer), end="")
    return 0


def _log(options: Options) -> int:
    return _show(options, "log", since=options.value("--since"))


def _pubkey(options: Options) -> int:
    pem, _ssh = options.flag("--pem"), options.flag("--ssh")
    [name] = options.names(1, 1)
    answer = _ask(options, "pubkey", key=name)
    text = answer["pem" if pem else "ssh"]
    if text is None:
        raise HsmAgentError("ssh has no name for this kind of key; --pem shows it")
    print(text.rstrip("\n"))
    return 0


def _unlock(options: Options) -> int:
    from hsmagent import terminal

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
