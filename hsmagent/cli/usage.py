"""What `--help` says, of each program and command, from the table of commands."""

from hsmagent import __version__
from hsmagent.cli import commands
from hsmagent.cli.command import VERSION, VERSION_OF_SSH, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 80
_LEFT = 26

_EXIT = "Exit status: 0 done, 1 failed or refused, 2 wrong usage.\n"
_MORE = "`hsmagent COMMAND --help` says more of each.\n"


def overview() -> str:
    """Return the text of `hsmagent --help`."""
    parts = [f"\n{heading}\n{_listed(of)}" for heading, of in commands.COMMANDS.items()]
    head = "usage: hsmagent COMMAND [ARGUMENT...] [options]\n       hsmagent --help | --version\n"
    return f"{head}{''.join(parts)}\n{_MORE}{_EXIT}"


def group(name: str) -> str:
    """Return the text of `hsmagent GROUP --help`, such as `hsmagent smime --help`."""
    verbs = [c for c in commands.BY_NAME.values() if c.name.startswith(f"{name} ")]
    # A verb of two words stays in one line.
    called = [verb.name.removeprefix(f"{name} ").replace(" ", "\xa0") for verb in verbs]
    said = f"usage: hsmagent {name} {' | '.join(called)}"
    lines = _wrapped(said, WIDTH, " " * 16)
    head = "\n".join(lines).replace("\xa0", " ")
    return f"{head}\n\n{_sentence(commands.GROUPS[name])}\n\n{_listed(verbs)}"


def _listed(some: "Iterable[Command]") -> str:
    return "".join(_row(_called(command), command.meaning) for command in some)


def _called(command: Command) -> str:
    return " ".join((command.name, *(argument.shown for argument in command.arguments)))


def line(command: Command) -> str:
    """Return how a command is called, in one line."""
    words = (command.path, "[options]", *(argument.shown for argument in command.arguments))
    return f"usage: {' '.join(words)}"


def of(command: Command) -> str:
    """Return the text of `hsmagent COMMAND --help`, or of another program's `--help`."""
    rows = [(argument.name, argument.meaning) for argument in command.arguments]
    for option in command.options:
        meaning = option.meaning
        if option.choices:
            meaning += f" ({', '.join(option.choices)})"
        rows.append((", ".join(option.names) + f" {option.value}".rstrip(), meaning))
    shown = "".join(_row(left, meaning) for left, meaning in rows)
    return f"{line(command)}\n\n{_sentence(command.meaning)}\n\n{shown}"


def about(program: Command, words: "Sequence[str]") -> str:
    """Return a program's help or version, if its first argument asks for that, else "".

    Later arguments may be values, or another program's arguments.
    """
    option = program.option(words[0]) if words else None
    if option is None or option.names[0] not in {"--help", "--version"}:
        return ""
    if option.names[0] == "--help":
        return of(program)
    return f"{program.name} {__version__}\n" if option in (VERSION, VERSION_OF_SSH) else ""


def _row(left: str, meaning: str) -> str:
    lines = _wrapped(meaning, WIDTH - _LEFT - 4)
    head = f"  {left:{_LEFT}} "
    if len(left) > _LEFT:
        head = f"  {left}\n{'':{_LEFT + 3}}"
    return head + f"\n{'':{_LEFT + 3}}".join(lines) + "\n"


def _sentence(meaning: str) -> str:
    return "\n".join(_wrapped(f"{meaning[0].upper()}{meaning[1:]}.", WIDTH))


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return lines of at most `width`, all but the first indented."""
    from textwrap import wrap  # whoever asks for no help does not wait for it

    return wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
