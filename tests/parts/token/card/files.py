"""The card's file system: flat, two-byte file ids whose high byte says what a file is."""

from hsmagent.schsm.apdu import SW
from tests.parts.token.card.answer import Answer

LARGEST = 0x10000  # offsets have two bytes


class Files:
    """Contents by file id, and the one that was selected last. Writing extends, never truncates."""

    def __init__(self) -> None:
        self.content: dict[int, bytes] = {}
        self.current = 0

    def select(self, which: int) -> int:
        """Make a file the current one and return its size."""
        if which not in self.content:
            raise Answer(SW.FILE_NOT_FOUND)
        self.current = which
        return len(self.content[which])

    def read(self, which: int, offset: int, length: int) -> bytes:
        """Return up to `length` bytes; fewer come with a warning, as the driver expects."""
        which = which or self.current
        if which not in self.content:
            raise Answer(SW.FILE_NOT_FOUND)
        content = self.content[which]
        if offset > len(content):
            raise Answer(SW.WRONG_OFFSET)
        part = content[offset : offset + length]
        if len(part) < length:
            raise Answer(SW.END_OF_FILE, part)
        return part

    def update(self, which: int, offset: int, data: bytes) -> None:
        """Create, extend or overwrite a file and make it the current one."""
        which = which or self.current
        content = self.content.get(which, b"")
        if not which or offset > len(content) or offset + len(data) > LARGEST:
            raise Answer(SW.WRONG_OFFSET)
        self.content[which] = content[:offset] + data + content[offset + len(data) :]
        self.current = which

    def delete(self, which: int) -> None:
        """Forget a file."""
        if self.content.pop(which, None) is None:
            raise Answer(SW.FILE_NOT_FOUND)
