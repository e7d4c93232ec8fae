"""sendmail's arguments, as mail programs give them: which go on, and who the recipients are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hsmagent.errors import UsageError
from hsmagent.model import printable

# Modes in which sendmail does something other than send the message on its standard input.
_REFUSED = ("-bs", "-bd", "-bD", "-bp", "-bi", "-bv", "-bt", "-bh", "-bH", "-bP", "-bz", "-q", "-I")
_ALONE = set("timnvGU")
_WITH_VALUE = set("fFrBNRVOhLXCMADpa")  # "-f alice" and "-falice" alike


@dataclass(slots=True)
class Arguments:
    """passed: what goes on to the real sendmail, the recipients left out; the rest by meaning."""

    passed: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    from_header: bool = False  # -t: the recipients are in To, Cc and Bcc
    dot_ends: bool = True  # without -i a line with only "." ends the message


def parse(argv: Sequence[str]) -> Arguments:
    """Read sendmail's (and msmtp's) arguments. Raises UsageError for modes that do not send."""
    found = Arguments()
    words = iter(argv)
    for word in words:
        if word == "--":
            found.recipients += words
        elif word.startswith(_REFUSED):
            raise UsageError(
                f"hsmagent-sendmail only sends one message; {printable(word)} does not"
            )
        elif word == "-oi":
            found.dot_ends = False
        elif len(word) > 1 and word[0] == "-" and set(word[1:]) <= _ALONE:  # "-t", "-ti"
            found.from_header |= "t" in word
            found.dot_ends &= "i" not in word
            found.passed += ("-" + letter for letter in word[1:] if letter not in "ti")
        elif word == "-o":
            found.dot_ends = _old_option(found, next(words, "")) and found.dot_ends
        elif word.startswith("--") or not word.startswith("-"):
            (found.passed if word.startswith("-") else found.recipients).append(word)
        elif word[1:2] in _WITH_VALUE and len(word) == 2:  # noqa: PLR2004 - "-f" alone
            found.passed += (word, next(words, ""))
        else:
            found.passed.append(word)
    return found


def _old_option(found: Arguments, option: str) -> bool:
    """`-o i` for `-oi`; returns whether a dot still ends the message."""
    if option == "i":
        return False
    found.passed += ("-o", option)
    return True
