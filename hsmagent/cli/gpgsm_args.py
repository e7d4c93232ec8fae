"""gpgsm's arguments, as git, Emacs and gpgme give them: what is obeyed, what changes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hsmagent.cli.arguments import nearest, need_text
from hsmagent.cli.programs import GPGSM
from hsmagent.errors import UsageError
from hsmagent.model import printable

COMMANDS = {
    "--sign": "sign",
    "--detach-sign": "detach-sign",
    "--detach-sig": "detach-sign",
    "--verify": "verify",
    "--encrypt": "encrypt",
    "--decrypt": "decrypt",
    "--list-keys": "list-keys",
    "--list-public-keys": "list-keys",
    "--list-secret-keys": "list-secret-keys",
    "--version": "version",
}
FLAGS = {"--armor", "--with-colons", "--with-key-data", "--with-keygrip"}
VALUES = {"--status-fd", "--local-user", "--recipient", "--output"}
SHORT = {
    "s": "--sign",
    "b": "--detach-sign",
    "e": "--encrypt",
    "d": "--decrypt",
    "k": "--list-keys",
    "K": "--list-secret-keys",
    "a": "--armor",
    "u": "--local-user",
    "r": "--recipient",
    "o": "--output",
    "q": "--quiet",
    "v": "--verbose",
}
# How it talks and to whom, in which of its forms input comes, and what is the default here.
HARMLESS = {
    *(
        "--batch",
        "--yes",
        "--quiet",
        "--verbose",
        "--no-tty",
        "--no-greeting",
        "--no-secmem-warning",
    ),
    *("--enable-progress-filter", "--with-fingerprint", "--with-validation", "--textmode"),
    *("--assume-armor", "--assume-base64", "--assume-binary", "--fixed-list-mode"),
}
HARMLESS_VALUES = {
    *("--keyid-format", "--command-fd", "--logger-fd", "--pinentry-mode", "--homedir"),
    *("--display", "--ttyname", "--ttytype", "--lc-ctype", "--lc-messages", "--xauthority"),
}


@dataclass(slots=True)
class Arguments:
    """command: a word of COMMANDS' values; flags; values by option, the last one counts; files."""

    command: str = ""
    flags: set[str] = field(default_factory=set)
    values: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def get(self, option: str) -> str:
        """Return an option's last value, or ""."""
        return self.values.get(option, [""])[-1]


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments. Raises UsageError for what is neither obeyed nor harmless."""
    found = Arguments()
    words = iter(argv)
    for word in words:
        if word == "--":
            found.files += words
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            _option(found, name, iter((value,)) if equals else words)
        elif word.startswith("-") and word != "-":
            _letters(found, word[1:], words)
        else:
            found.files.append(word)
    if not found.command:
        raise UsageError(
            "say what to do: --sign, --verify, --encrypt, --decrypt or --list-keys (see --help)"
        )
    return found


def _letters(found: Arguments, letters: str, words: Iterator[str]) -> None:
    for position, letter in enumerate(letters, 1):
        name = SHORT.get(letter)
        if name is None:
            raise UsageError(f"hsmagent-gpgsm does not know -{printable(letter)}")
        if name in VALUES and letters[position:]:
            _option(found, name, iter((letters[position:],)))
            return
        _option(found, name, words)


def _option(found: Arguments, name: str, values: Iterator[str]) -> None:
    if name in VALUES | HARMLESS_VALUES:
        value = next(values, None)
        if value is None:
            raise UsageError(f"{name} needs a value")
        part = GPGSM.option(name)
        if part is not None and name in VALUES:
            need_text(part, name, value)
        found.values.setdefault(name, []).append(value)
    elif name in COMMANDS:
        _command(found, COMMANDS[name])
    elif name in FLAGS:
        found.flags.add(name)
    elif name not in HARMLESS:
        known = VALUES | HARMLESS_VALUES | COMMANDS.keys() | FLAGS | HARMLESS
        raise UsageError(f"hsmagent-gpgsm does not know {printable(name)}{nearest(name, known)}")


def _command(found: Arguments, command: str) -> None:
    both = {found.command, command}
    if both <= {"sign", "detach-sign"}:  # git's -bs
        command = "detach-sign" if "detach-sign" in both else "sign"
    elif found.command not in {"", command}:
        raise UsageError(f"hsmagent-gpgsm does one thing at a time: {found.command} or {command}")
    found.command = command
