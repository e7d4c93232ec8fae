"""Which card a command is for: ours, or one that only the real scdaemon reads. No I/O.

Our card is meant where no other is named. The real scdaemon keeps a reader to itself once it was
asked, so it is asked only where its card is meant: when a foreign serial number is named, a kind of
card ("openpgp") or a key that is not ours, or when this conversation has chosen such a card.
"""

from hsmagent.assuan import Request
from hsmagent.scd.card import SERIAL, Card

# Commands whose last word names a key or a certificate.
BY_NAME = frozenset({"READCERT", "READKEY", "KEYINFO", "PKSIGN", "PKAUTH", "PKDECRYPT"})
# Commands that choose a card.
CHOOSING = frozenset({"SERIALNO", "SWITCHCARD"})
# Commands about this process, whichever card is meant.
_OURS = frozenset({"GETINFO", "OPTION", "NOP", "BYE", "RESET", "RESTART", "KILLSCD", "SETDATA"})
_WAITING = frozenset({"LOCK", "UNLOCK"})  # by these clients wait for one another; here none must


def is_foreign(request: Request, card: Card, *, chosen: bool) -> bool:
    """Whether the real scdaemon is to answer. chosen: its card was chosen in this conversation."""
    if request.name in CHOOSING:
        named = request.options.get("demand") or request.last
        return named.upper() != SERIAL if named else chosen and request.name != "SERIALNO"
    if request.name in _OURS or request.name in _WAITING:
        return False
    if request.name in BY_NAME and request.last and not request.last.startswith("$"):
        return not card.has(request.last)
    return chosen
