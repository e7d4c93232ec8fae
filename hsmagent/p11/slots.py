"""The slots: one for each token that was ever seen with a key for programs.

No slot is ever removed, and slots and objects keep their numbers as long as the process runs,
through removals and restarts of the daemon, since programs remember the numbers.
"""

from collections.abc import Iterable, Mapping
from itertools import count

from hsmagent.p11.objects import Object, Token


class Slot:
    """A slot and its token, as the daemon told of it last.

    insertion: a number for each time that a token was plugged in; 0 while this one is away.
    absence: how often the token was away. objects: by their handles.
    """

    def __init__(self, number: int, token: Token) -> None:
        self.number = number
        self.token = token
        self.insertion = 0
        self.absence = 0
        self.objects: Mapping[int, Object] = {}


class Slots:
    """Every slot, by its number."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, ...], Slot] = {}
        self._numbers = count(1)
        self._insertions = count(1)
        self._handles: dict[tuple[object, ...], int] = {}
        self._next_handle = count(1)

    def show(self, tokens: Iterable[Token]) -> None:
        """Take in the daemon's answer: these tokens, and no others, are there now."""
        here = {token.name: token for token in tokens if token.present}
        for name, token in here.items():
            if name not in self._slots:
                self._slots[name] = Slot(next(self._numbers), token)
        for name, slot in self._slots.items():
            if name not in here:
                slot.absence += bool(slot.insertion)
                slot.insertion, slot.objects = 0, {}
                continue
            slot.token = token = here[name]
            slot.insertion = slot.insertion or next(self._insertions)
            slot.objects = {self._handle(slot, each): each for each in token.objects}

    def _handle(self, slot: Slot, shown: Object) -> int:
        name = (slot.number, *shown.name)
        if name not in self._handles:
            self._handles[name] = next(self._next_handle)
        return self._handles[name]

    def numbers(self, *, present: bool) -> tuple[int, ...]:
        """Return the slots' numbers; present: only those with a token in them."""
        return tuple(s.number for s in self._slots.values() if s.insertion or not present)

    def get(self, number: int) -> Slot | None:
        """Return the slot of this number."""
        return next((s for s in self._slots.values() if s.number == number), None)
