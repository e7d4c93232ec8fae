"""A PIN with its retry counter."""

from hsmagent.schsm.apdu import SW
from tests.parts.token.card.answer import Answer


class Pin:
    """A reference value that is lost after too many wrong ones.

    `presented` and `wrong` count for the tests: how often somebody tried, and how often in vain.
    """

    def __init__(self, value: bytes, tries: int) -> None:
        self.value = value
        self.tries = tries
        self.left = tries
        self.presented = 0
        self.wrong = 0

    def query(self) -> None:
        """Answer how many tries are left. Always raises."""
        raise Answer(SW.WRONG_PIN | self.left if self.left else SW.PIN_BLOCKED)

    def check(self, value: bytes) -> None:
        """Return if `value` is right; count and raise if not."""
        self.presented += 1
        if not self.left:
            raise Answer(SW.PIN_BLOCKED)
        if value != self.value:
            self.wrong += 1
            self.left -= 1
            self.query()
        self.left = self.tries

    def change(self, old_and_new: bytes) -> None:
        """Take the new value that follows the old one."""
        length = len(self.value)
        self.check(old_and_new[:length])
        self.value = old_and_new[length:]

    def unblock(self, value: bytes) -> None:
        """Take a new value, with all its tries. The caller has checked who asks."""
        self.value = value
        self.left = self.tries
