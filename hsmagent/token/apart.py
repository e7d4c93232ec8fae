"""Tokens with the same label, told apart: a card and its backup may both be "SmartCard-HSM"."""

from collections import defaultdict
from collections.abc import Mapping

from hsmagent.model import TokenId, printable


def told_apart(readers: Mapping[TokenId, str]) -> dict[TokenId, str]:
    """Return for each token what tells it from the other tokens that a person would call the same.

    readers: the tokens, each with the name of the reader that it is in ("" if it is in none).
    The result is "" for a token that shares its label with no other; else its serial where the
    serials differ, or its model, reader, manufacturer or module; all of them where none differs
    everywhere.
    """
    called: defaultdict[str, list[TokenId]] = defaultdict(list)
    for token in readers:
        called[printable(token.label)].append(token)
    found: dict[TokenId, str] = {}
    for group in called.values():
        found |= dict(zip(group, _apart({each: readers[each] for each in group}), strict=True))
    return found


def _apart(group: Mapping[TokenId, str]) -> list[str]:
    if len(group) == 1:
        return [""]
    told = [
        (each.serial, each.model, reader, each.manufacturer, each.module)
        for each, reader in group.items()
    ]
    shown = [tuple(printable(value, 60) for value in values) for values in told]
    for column in zip(*shown, strict=True):
        if len(set(column)) == len(group) and all(column):
            return list(column)
    return [", ".join(filter(None, values)) for values in shown]
