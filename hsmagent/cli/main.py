"""The program `hsmagent`, and its quick commands: ask the daemon, print, leave.

They start almost as fast as a bare interpreter, so this module imports next to nothing; a command
imports by itself what it needs beyond that.
"""

import sys

from hsmagent import __version__
from hsmagent.cli import arguments, commands, output
from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from hsmagent.cli.arguments import Given

    Answer = dict[str, Any]

HELP = {"--help", "-h"}
# Seconds for what the daemon has at hand. Our question may have started the daemon.
AT_HAND = 30.0


def main() -> "NoReturn":
    """Run the command line and exit: 0 done, 1 failed or refused, 2 wrong usage."""
    output.prepare()
    output.leave(run(sys.argv[1:]))


def run(words: "Sequence[str]") -> int:
    """Run one command. Return its exit status; errors are one line on stderr."""
    try:
        status = _dispatch(words)
        output.write("")
    except UsageError as error:
        return _fail(str(error), 2)
    except HsmAgentError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        output.drop()  # whoever read the output has left, so nobody needs to be told
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _dispatch(words: "Sequence[str]") -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    command, rest = commands.find(words)
    if command is None:
        return _without_command(rest)
    if not HELP.isdisjoint(rest[:1] if command.own_words else rest):
        from hsmagent.cli import usage

        output.write(usage.of(command))
        return 0
    return command.load()(arguments.parse(command, rest))


def _without_command(words: "Sequence[str]") -> int:
    """Say what there is. Raises UsageError."""
    from hsmagent.cli import usage

    group, rest = commands.group(words)
    if group:
        return _without_verb(group, rest)
    match words:
        case []:
            output.write(usage.overview())
            return 2
        case ["-h" | "--help", *_]:
            output.write(usage.overview())
        case ["--version", *_]:
            output.write(f"hsmagent {__version__}\n")
        case [word, second, *_] if arguments.nearest(f"{word} {second}", _PAIRS):
            raise _unknown(f"{word} {second}", _PAIRS, "hsmagent")
        case [word, *_]:
            raise _unknown(word, [*commands.BY_NAME, *commands.GROUPS], "hsmagent")
    return 0


def _without_verb(group: str, words: "Sequence[str]") -> int:
    if not words:
        raise UsageError(f"say what `hsmagent {group}` is to do; see `hsmagent {group} --help`")
    if words[0] not in HELP:
        verbs = [name for name in commands.BY_NAME if name.startswith(f"{group} ")]
        raise _unknown(f"{group} {words[0]}", verbs, f"hsmagent {group}")
    from hsmagent.cli import usage

    output.write(usage.group(group))
    return 0


_PAIRS = [name for name in commands.BY_NAME if " " in name]


def _unknown(named: str, known: "Sequence[str]", where: str) -> UsageError:
    from hsmagent.model import printable

    meant = arguments.nearest(named, known) or f"; see `{where} --help`"
    return UsageError(f"there is no command {printable(named)!r}{meant}")


def _fail(sentence: str, status: int) -> int:
    print(f"hsmagent: {sentence}", file=sys.stderr)
    return status


def _ask(given: "Given", op: str, timeout: "float | None" = None, **fields: str) -> "Answer":
    with Daemon(given.value("--runtime-dir"), timeout) as daemon:
        return daemon.call(op, **fields)


# -- the quick commands ----------------------------------------------------------------------


def status(given: "Given") -> int:
    """`hsmagent status`."""
    if given.flag("--watch"):
        from hsmagent.cli import watch

        return watch.watch(given)
    return _show(given, "status", "status")


def keys(given: "Given") -> int:
    """`hsmagent keys`."""
    return _show(given, "ssh_lines" if given.flag("--ssh") else "keys", "keys")


def log(given: "Given") -> int:
    """`hsmagent log`. Without a daemon, show what was written down before."""
    if given.flag("--follow"):
        from hsmagent.cli import watch

        return watch.follow(given)
    since = given.value("--since")
    try:
        daemon = Daemon(given.value("--runtime-dir"), AT_HAND)
    except Unavailable as error:
        print(f"hsmagent: {error}; until then, this is what was written down", file=sys.stderr)
        return _lay_out(given, "log", _written_down(since))
    with daemon:
        return _lay_out(given, "log", daemon.call("log", since=since))


def _written_down(since: str) -> "Answer":
    from pathlib import Path

    from hsmagent.control.operations import told
    from hsmagent.door.activity import Activity
    from hsmagent.folders import state_folder

    return told(Activity(Path(state_folder())), since)


def _show(given: "Given", layout: str, what: str) -> int:
    return _lay_out(given, layout, _ask(given, what, AT_HAND))


def _lay_out(given: "Given", layout: str, answer: "Answer") -> int:
    if given.flag("--json"):
        import json

        output.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
        return 0
    if layout == "log" and not answer["entries"]:
        print("hsmagent: nothing is in the log" + _since(given), file=sys.stderr)
        return 0
    if layout in {"status", "log"} and output.on_terminal():
        from hsmagent.cli import glance

        output.write(glance.status(answer) if layout == "status" else glance.log(answer))
        return 0
    from hsmagent.cli import show

    layouts = {
        "status": show.status,
        "keys": show.keys,
        "ssh_lines": show.ssh_lines,
        "log": show.log,
    }
    output.write(layouts[layout](answer))
    return 0


def _since(given: "Given") -> str:
    from hsmagent.model import printable

    since = given.value("--since")
    return f" since {printable(since)}" if since else ""


def pubkey(given: "Given") -> int:
    """`hsmagent pubkey`."""
    answer = _ask(given, "pubkey", AT_HAND, key=given.word)
    text = answer["pem" if given.flag("--pem") else "ssh"]
    if text is None:
        raise HsmAgentError("ssh has no name for this kind of key; --pem shows it")
    output.write(text.rstrip("\n") + "\n")
    return 0


def unlock(given: "Given") -> int:
    """`hsmagent unlock`."""
    from hsmagent.cli import terminal

    from_stdin = given.flag("--stdin")
    last_try = given.flag("--last-try")
    with Daemon(given.value("--runtime-dir")) as daemon:
        daemon.check_place()
        asked = daemon.call("unlock", token=given.word)
        if asked["logged_in"]:
            output.write(f"{asked['token']} is unlocked already\n")
            return 0
        if asked["pin_state"] == "final-try" and not last_try:
            if from_stdin:
                raise HsmAgentError(f"{asked['warning']} Add --last-try if you are sure")
            print(asked["warning"], file=sys.stderr, flush=True)
            last_try = terminal.types("yes", "ask in; use --last-try")
            if not last_try:
                raise HsmAgentError("nothing was tried")
            asked["warning"] = ""  # it was read
        daemon.exchange(terminal.pin_frame(asked, from_stdin=from_stdin, last_try=last_try))
    served = ", and what waited for the PIN goes on" if asked.get("waiting") else ""
    output.write(f"{asked['token']} is unlocked{served}\n")
    return 0


def lock(given: "Given") -> int:
    """`hsmagent lock`."""
    locked = _ask(given, "lock", token=given.word)["tokens"]
    output.write(f"locked: {', '.join(locked)}\n" if locked else "no token was unlocked\n")
    return 0


def refresh(given: "Given") -> int:
    """`hsmagent refresh`."""
    answer = _ask(given, "refresh")
    ended, keys = answer["tokens"], answer["keys"]
    count = {0: "no keys", 1: "1 key"}.get(keys, f"{keys} keys")
    output.write(f"{count}; " + (f"locked: {', '.join(ended)}\n" if ended else "no login ended\n"))
    return 0


def forget_pin(given: "Given") -> int:
    """`hsmagent forget-pin`."""
    answer = _ask(given, "forget_pin", token=given.word)
    output.write(f"no PIN of {answer['token']} is kept\n")
    return 0
