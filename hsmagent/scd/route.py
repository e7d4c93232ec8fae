"""For whom a command is: our card, or one that only the real scdaemon reads. Pure.

Our card is meant where nothing else is named. The real one holds a reader for itself once it was
asked, so it is asked only where its card is meant: by a foreign serial number, a kind of card
("openpgp"), a key that is not ours, or since this conversation has chosen such a card.
"""

from hsmagent.assuan import Request
from hsmagent.scd.card import SERIAL, Card

# They name a key or certificate by their last word.
BY_NAME = frozenset({"READCERT", "READKEY", "KEYINFO", "PKSIGN", "PKAUTH", "PKDECRYPT"})
# They choose a card.
CHOOSING = frozenset({"SERIALNO", "SWITCHCARD"})
# They are about this process, whichever card is meant.
_OURS = frozenset({"GETINFO", "OPTION", "NOP", "BYE", "RESET", "RESTART", "KILLSCD", "SETDATA"})
_WAITING = frozenset({"LOCK", "UNLOCK"})  # for one another; nobody has to wait here


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
