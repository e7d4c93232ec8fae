"""gpgsm's arguments, as git, Emacs and gpgme give them: those obeyed, and those without effect."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hsmagent.cli.arguments import nearest, need_text
from hsmagent.cli.programs import GPGSM, NO_EFFECT
from hsmagent.errors import UsageError
from hsmagent.model import printable

# Options, without their dashes, that say what is done.
COMMANDS = {
    *("sign", "detach-sign", "verify", "encrypt", "decrypt"),
    *("list-keys", "list-secret-keys", "version"),
}
_LONG = [name for option in GPGSM.options for name in option.names if name.startswith("--")]


@dataclass(slots=True)
class Arguments:
    """What was given. command: one of COMMANDS. values: by option; the last one counts.

    An option is named by the first of its long names in the table.
    """

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
        option = GPGSM.option(f"-{letter}")
        if option and option.value and letters[position:]:
            _option(found, f"-{letter}", iter((letters[position:],)))
            return
        _option(found, f"-{letter}", words)


def _option(found: Arguments, spelling: str, values: Iterator[str]) -> None:
    option = GPGSM.option(spelling)
    if option is None:
        close = nearest(spelling, _LONG) if spelling.startswith("--") else ""
        raise UsageError(f"hsmagent-gpgsm does not know {printable(spelling)}{close}")
    name = next(name for name in option.names if name.startswith("--"))
    if option.value:
        value = next(values, None)
        if value is None:
            raise UsageError(f"{spelling} needs a value")
        if option.meaning != NO_EFFECT:
            need_text(option, name, value)
        found.values.setdefault(name, []).append(value)
    elif name[2:] in COMMANDS:
        _command(found, name[2:])
    else:
        found.flags.add(name)


def _command(found: Arguments, command: str) -> None:
    both = {found.command, command}
    if both <= {"sign", "detach-sign"}:  # git's -bs
        command = "detach-sign" if "detach-sign" in both else "sign"
    elif found.command not in {"", command}:
        raise UsageError(f"hsmagent-gpgsm does one thing at a time: {found.command} or {command}")
    found.command = command
