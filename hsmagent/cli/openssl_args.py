"""The arguments of `openssl smime` and `openssl cms`, as mutt, neomutt and Emacs give them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hsmagent.errors import UsageError
from hsmagent.model import printable

OPERATIONS = ("-sign", "-verify", "-encrypt", "-decrypt")
_FLAGS = {
    "-nodetach",
    "-binary",
    "-text",
    "-noverify",
    "-nointern",
    "-nocerts",
    "-nosmimecap",
    "-stream",
    "-indef",
    "-noindef",
    "-crlfeol",
    "-keyid",
    "-crl_check",
    "-crl_check_all",
    "-x509_strict",
}
_VALUES = {
    "-md",
    "-signer",
    "-inkey",
    "-recip",
    "-certfile",
    "-passin",
    "-in",
    "-out",
    "-inform",
    "-outform",
    "-content",
    "-CAfile",
    "-CApath",
    "-to",
    "-from",
    "-subject",
    "-keyform",
    "-purpose",
}
# What would weaken the result or change its meaning without a word is refused, not ignored.
_REFUSED = {"-noattr", "-nosigs"}


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
    found = Arguments()
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            found.files.append(word)
        elif word in _VALUES:
            value = next(rest, None)
            if value is None:
                raise UsageError(f"{word} needs a value")
            found.values.setdefault(word, []).append(value)
        else:
            _flag(found, word)
    if not found.operation:
        raise UsageError("hsmagent-smime needs -sign, -verify, -encrypt or -decrypt")
    return found


def _flag(found: Arguments, word: str) -> None:
    if word in OPERATIONS and not found.operation:
        found.operation = word
    elif word in _REFUSED or word in OPERATIONS:
        raise UsageError(f"hsmagent-smime refuses {word} here")
    elif word.startswith(("-aes", "-des")):
        found.cipher = word
    elif word in _FLAGS:
        found.flags.add(word)
    else:
        raise UsageError(f"hsmagent-smime does not know {printable(word)}")
