"""The arguments of `openssl smime` and `openssl cms`, as mutt, neomutt and Emacs give them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hsmagent.cli.arguments import nearest, need_text
from hsmagent.cli.programs import SMIME
from hsmagent.errors import UsageError
from hsmagent.model import printable

OPERATIONS = ("-sign", "-verify", "-encrypt", "-decrypt")
_IO = {"-in", "-out"}
_HEADER = {"-to", "-from", "-subject"}
_TRUST = {"-CAfile", "-CApath", "-crl_check", "-crl_check_all", "-purpose", "-attime"}
# What each operation obeys. Any other option of openssl's is refused, so that nothing is taken
# for done that was not.
OBEYED = {
    "-sign": _IO
    | _HEADER
    | {"-outform", "-signer", "-inkey", "-certfile", "-md", "-nodetach", "-binary", "-text"},
    "-verify": _IO
    | _TRUST
    | {"-inform", "-content", "-certfile", "-signer", "-noverify", "-nointern", "-binary"},
    "-encrypt": _IO | _HEADER | {"-outform", "-recip", "-binary", "-text"},
    "-decrypt": _IO | {"-inform", "-recip", "-passin"},
}
# What changes nothing that anybody relies on: the form of BER, what a key file is, which of our
# keys is meant (the message says that), a passphrase that we have no use for, and capabilities.
HARMLESS = {"-stream", "-indef", "-noindef", "-keyform", "-passin", "-inkey", "-nosmimecap"}


@dataclass(slots=True)
class Arguments:
    """operation: one of OPERATIONS; flags and values by option; files: what stands alone."""

    operation: str = ""
    flags: set[str] = field(default_factory=set)
    values: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    cipher: str = ""

    def get(self, option: str, default: str = "") -> str:
        """Return an option's last value."""
        return self.values.get(option, [default])[-1]

    def form(self, option: str) -> str:
        """Return -inform or -outform: "SMIME", "DER" or "PEM"."""
        form = self.get(option, "SMIME").upper()
        if form not in {"SMIME", "DER", "PEM"}:
            raise UsageError(f"{option} is SMIME, DER or PEM")
        return form


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments; a leading `smime` or `cms` may be there. Raises UsageError."""
    words = list(argv)
    if words and words[0] in {"smime", "cms"}:
        del words[0]
    given = [word for word in words if word in OPERATIONS]
    if len(given) != 1:
        raise UsageError("hsmagent-smime needs one of -sign, -verify, -encrypt and -decrypt")
    found = Arguments(given[0])
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            found.files.append(word)
        elif word != found.operation:
            _option(found, word, rest)
    if found.get("-purpose", "smimesign") != "smimesign":
        raise UsageError("hsmagent-smime judges signatures of mail: -purpose is smimesign")
    return found


def _option(found: Arguments, word: str, rest: Iterator[str]) -> None:
    if word.startswith(("-aes", "-des")) and found.operation == "-encrypt":
        found.cipher = word
        return
    if word not in OBEYED[found.operation] | HARMLESS:
        known = OBEYED[found.operation] | HARMLESS
        sentence = f"hsmagent-smime does not do {printable(word)} with {found.operation}"
        raise UsageError(sentence + nearest(word, known))
    option = SMIME.option(word)
    if option is None or not option.value:
        found.flags.add(word)
        return
    value = next(rest, None)
    if value is None:
        raise UsageError(f"{word} needs a value")
    if word not in HARMLESS:
        need_text(option, word, value)
    found.values.setdefault(word, []).append(value)
