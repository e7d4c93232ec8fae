"""Tokens of one label, told apart: a card and its backup are both "SmartCard-HSM (UserPIN)"."""

from collections import defaultdict
from collections.abc import Iterable

from hsmagent.model import TokenId, printable


def told_apart(tokens: Iterable[TokenId]) -> dict[TokenId, str]:
    """Return for each token what tells it from the others that a person would call the same.

    "" where nobody else is called so; the serial where serials differ, else model, manufacturer or
    module; all of them where no single one does.
    """
    called: defaultdict[str, list[TokenId]] = defaultdict(list)
    for token in tokens:
        called[printable(token.label)].append(token)
    found: dict[TokenId, str] = {}
    for group in called.values():
        found |= dict(zip(group, _apart(group), strict=True))
    return found


def _apart(group: list[TokenId]) -> list[str]:
    if len(group) == 1:
        return [""]
    told = [(each.serial, each.model, each.manufacturer, each.module) for each in group]
    shown = [tuple(printable(value, 60) for value in values) for values in told]
    for column in zip(*shown, strict=True):
        if len(set(column)) == len(group) and all(column):
            return list(column)
    return [", ".join(filter(None, values)) for values in shown]
