"""The slots: one for each token that was ever seen with a key for programs.

No slot is ever removed. An empty one stands at the end, for the next token: NSS asks which slots
there are when it starts, and would not see a token that is plugged in for the first time after
that. Slots and objects keep their numbers as long as the process runs, through removals and
restarts of the daemon, since programs remember the numbers.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count

from hsmagent.p11.objects import Object, Token

NO_TOKEN = Token("", "", "", "", "", present=False, objects=())


class Slot:
    """A slot and its token, as the daemon told of it last; before that, NO_TOKEN.

    insertion: a number for each time that a token was plugged in; 0 while this one is away.
    absence: how often the token was away. objects: by their handles.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.token = NO_TOKEN
        self.insertion = 0
        self.absence = 0
        self.objects: Mapping[int, Object] = {}


class Slots:
    """Every slot, by its number."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, ...], Slot] = {}
        self._numbers = count(1)
        self._empty = Slot(next(self._numbers))
        self._insertions = count(1)
        self._handles: dict[tuple[object, ...], int] = {}
        self._next_handle = count(1)

    def show(self, tokens: Iterable[Token]) -> None:
        """Take in the daemon's answer: these tokens, and no others, are there now."""
        here = {token.name: token for token in tokens if token.present}
        for name in here:
            if name not in self._slots:
                self._slots[name], self._empty = self._empty, Slot(next(self._numbers))
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
        return tuple(slot.number for slot in self._each() if slot.insertion or not present)

    def get(self, number: int) -> Slot | None:
        """Return the slot of this number."""
        return next((slot for slot in self._each() if slot.number == number), None)

    def _each(self) -> Iterator[Slot]:
        return chain(self._slots.values(), (self._empty,))
