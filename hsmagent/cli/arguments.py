"""Reading a command's arguments by the table of commands. Imports next to nothing."""

from hsmagent.cli.command import FILE, FOLDER, TIME, Argument, Command, Option
from hsmagent.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

# How alike two words must be for a "did you mean" (difflib's ratio). With two letters exchanged,
# even a short word is; "list" and "lock" are not.
_CLOSE = 0.7


class Given:
    """What was given to a command. Raises KeyError for an option that the command does not have."""

    __slots__ = ("_options", "command", "words")

    def __init__(
        self, command: Command, options: "dict[str, list[str]]", words: "list[str]"
    ) -> None:
        self.command = command
        self._options = options
        self.words = words

    def values(self, name: str) -> "list[str]":
        """Return every value that the option was given, in order."""
        option = self.command.option(name)
        if option is None:
            raise KeyError(name)
        return self._options.get(option.names[0], [])

    def value(self, name: str) -> str:
        """Return the option's last value, or ""."""
        return (self.values(name) or [""])[-1]

    def number(self, name: str) -> int | None:
        """Return the option's last value, a whole number, or None. Raises UsageError."""
        value = self.value(name)
        if value and not (value.isascii() and value.isdecimal()):
            raise UsageError(f"{name} needs a number")
        return int(value) if value else None

    def flag(self, name: str) -> bool:
        """Whether the option was given."""
        return bool(self.values(name))

    @property
    def word(self) -> str:
        """The only argument that is not an option, or ""."""
        return "".join(self.words)


def parse(command: Command, given: "Sequence[str]") -> Given:
    """Read options (`--name value`, `--name=value`) and arguments in any order. Raises UsageError.

    After `--` everything is an argument.
    """
    if command.own_words:
        return Given(command, {}, list(given))
    options: dict[str, list[str]] = {}
    words: list[str] = []
    rest = iter(given)
    for word in rest:
        if word == "--":
            words += rest
        elif word == "-" or not word.startswith("-"):
            words.append(word)
        else:
            name, equals, value = word.partition("=")
            option = command.option(name)
            if option is None:
                raise _no_option(command, name)
            value = _value(option, name, value if equals else None, rest)
            options.setdefault(option.names[0], []).append(value)
    places = command.places(len(words))
    if places is None:
        raise wrong(command, "wrong number of arguments")
    if "" in words:
        raise wrong(command, "an argument is empty")
    for argument, word in zip(places, words, strict=True):
        need_text(argument, argument.name, word)
    return Given(command, options, words)


def _no_option(command: Command, name: str) -> UsageError:
    from hsmagent.model import printable

    sentence = f"`{command.path}` has no option {name}"
    meant = nearest(name, [each for option in command.options for each in option.names])
    return UsageError(f"{printable(sentence)}{meant}") if meant else wrong(command, sentence)


def _value(option: Option, name: str, value: "str | None", rest: "Iterator[str]") -> str:
    if not option.value:
        if value is not None:
            raise UsageError(f"{name} takes no value")
        return ""
    value = next(rest, None) if value is None else value
    if not value:  # an empty one is a variable that somebody forgot to set
        raise UsageError(f"{name} needs a value")
    need_text(option, name, value)
    if option.choices and value not in option.choices:
        raise UsageError(f"{name} is one of {', '.join(option.choices)}")
    if option.kind == TIME:
        moment(value)
    return value


def need_text(part: "Option | Argument", name: str, value: str) -> None:
    """Refuse a value that is not UTF-8, unless it names a file, whose name may be any bytes."""
    if part.kind in {FILE, FOLDER}:
        return
    try:
        value.encode()
    except UnicodeEncodeError:  # os.fsdecode puts surrogates for such bytes
        from hsmagent.model import printable

        raise UsageError(f"{name} is not UTF-8: {printable(value)!r}") from None


def moment(text: str) -> "datetime":
    """Read a time in ISO 8601, in UTC where it names no zone. Raises UsageError."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        from hsmagent.model import printable

        raise UsageError(
            f"{printable(text)!r} is no time; give one such as 2026-05-01T12:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def nearest(word: str, known: "Iterable[str]") -> str:
    """Return the end of a sentence about an unknown word: "; did you mean …?", or ""."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), 1, _CLOSE)
    return f"; did you mean {found[0]}?" if found else ""


def wrong(command: Command, sentence: str) -> UsageError:
    """Return the error, with the command's usage line at its end."""
    from hsmagent.cli import usage
    from hsmagent.model import printable

    return UsageError(f"{printable(sentence)}; {usage.line(command)}")
