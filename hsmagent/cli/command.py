"""What a command is: its options and arguments, and what runs it. Imports next to nothing."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What a value names, so that shells can offer the files, folders, keys or tokens that there are.
FILE, FOLDER, KEY, TOKEN, TIME = "file", "folder", "key", "token", "time"


class Option:
    """An option: its spellings, what it means, and its value's name ("" for a flag).

    kind: FILE, FOLDER, KEY, TOKEN, TIME, or "" for any text. choices: the only values.
    offered: what shells offer where there may be other values.
    many: it may be given more than once.
    """

    __slots__ = ("choices", "kind", "many", "meaning", "names", "offered", "value")

    def __init__(
        self,
        names: str,
        meaning: str,
        value: str = "",
        kind: str = "",
        choices: "tuple[str, ...]" = (),
        *,
        offered: "tuple[str, ...]" = (),
        many: bool = False,
    ) -> None:
        self.names = names.split()
        self.meaning = meaning
        self.value = value
        self.kind = kind
        self.choices = choices
        self.offered = choices or offered
        self.many = many


class Argument:
    """An argument that is no option: its name and meaning, and how often it may be given.

    most: 0 is without a limit. kind and offered: as an option's.
    """

    __slots__ = ("kind", "least", "meaning", "most", "name", "offered")

    def __init__(
        self,
        name: str,
        meaning: str,
        kind: str = "",
        *,
        least: int = 1,
        most: int = 1,
        offered: "tuple[str, ...]" = (),
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.kind = kind
        self.least = least
        self.most = most
        self.offered = offered

    @property
    def shown(self) -> str:
        """How a usage line shows it: "KEY", "[TOKEN]", "FILE..."."""
        name = self.name + ("" if self.most == 1 else "...")
        return name if self.least else f"[{name}]"


class Command:
    """A program, or a command of `hsmagent`. name: the words after "hsmagent", or the program's.

    At most one of its arguments may be given more or less often than once.
    `smime sign` is run by the function `sign` of the module `cli.smime`, and `daemon` by `run` of
    `cli.daemon`, unless `run` names another function as "module:function". The function takes an
    `arguments.Given` and returns the exit status. own_words: the command reads its arguments
    itself, since those of another program follow its own.
    """

    __slots__ = ("arguments", "meaning", "name", "options", "own_words", "run")

    def __init__(
        self,
        name: str,
        meaning: str,
        *parts: "Option | Argument",
        run: str = "",
        own_words: bool = False,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.options = [part for part in parts if isinstance(part, Option)]
        self.arguments = [part for part in parts if isinstance(part, Argument)]
        self.run = run
        self.own_words = own_words
        if not self.is_program:
            self.options.append(HELP)

    @property
    def is_program(self) -> bool:
        """Whether it is a program by itself, and no command of `hsmagent`."""
        return self.name.startswith("hsmagent")

    @property
    def path(self) -> str:
        """How it is called: "hsmagent smime sign", "hsmagent-smime"."""
        return self.name if self.is_program else f"hsmagent {self.name}"

    def option(self, name: str) -> Option | None:
        """Return the option of this spelling."""
        return next((option for option in self.options if name in option.names), None)

    def places(self, count: int) -> "list[Argument] | None":
        """Return the argument that each of `count` words is; None for too few or too many words."""
        places: list[Argument] = []
        for argument in self.arguments:
            others = len(self.arguments) - 1
            times = 1 if argument.least == argument.most == 1 else count - others
            if times < argument.least or times > (argument.most or times):
                return None
            places += [argument] * times
        return places if len(places) == count else None

    def load(self) -> "Callable[[Any], int]":
        """Import the function that runs it."""
        import sys

        group, _, verb = self.name.replace("-", "_").partition(" ")
        module, _, function = (self.run or f"{group}:{verb or 'run'}").partition(":")
        __import__(f"hsmagent.cli.{module}")
        found: Callable[[Any], int] = getattr(sys.modules[f"hsmagent.cli.{module}"], function)
        return found


HELP = Option("-h --help", "say this")
VERSION = Option("--version", "say which version this is")
VERSION_OF_SSH = Option("--version -V", VERSION.meaning)  # as OpenSSH's programs spell it
JSON = Option("--json", "print JSON, for a program")
SSH_LINES = Option("--ssh", "only their lines for authorized_keys")
CONFIG = Option("--config", "the configuration file", "FILE", FILE)
RUNTIME_DIR = Option("--runtime-dir", "where the daemon's sockets are", "FOLDER", FOLDER)

SOME_TOKEN = Argument("TOKEN", "a label, a serial number or a PKCS#11 URI", TOKEN, least=0)
ONE_KEY = Argument("KEY", "a label, a fingerprint (SHA256:…) or a PKCS#11 URI", KEY)
