"""A large base64 body, of which each read decodes a part, so that it need not be written anew.

Programs write base64 in lines of one length, from which follows where each byte lies. Other bodies
are decoded into a spool (see layers.decoded).
"""

import binascii
import re
from dataclasses import dataclass

from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.spool import IN_MEMORY, Region

_LINE_MAX = 998  # RFC 5322, section 2.1.1
# So many bytes are decoded at once, since a million small reads may come in a row.
_WINDOW = 16 * 1024
_LETTERS = re.compile(rb"[A-Za-z0-9+/]+")
_WHAT = "the S/MIME part is not valid base64"


@dataclass(frozen=True, slots=True)
class _Form:
    """Lines of `line` characters, `newline` after each but the last, `size` bytes in all."""

    text: Region
    line: int
    newline: bytes
    size: int

    @property
    def step(self) -> int:
        return self.line + len(self.newline)

    @property
    def width(self) -> int:
        return self.line // 4 * 3


class Base64View:
    """A Source over such a body. Raises Malformed when what is read of it is not base64."""

    def __init__(self, form: _Form) -> None:
        self._form = form
        self._window, self._window_at = b"", 0

    @property
    def size(self) -> int:
        """How many bytes it stands for."""
        return self._form.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes from `offset`; fewer only at the end."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        at = offset - self._window_at
        if not 0 <= at <= at + count <= len(self._window):
            width = self._form.width
            first, end = offset // width, min(offset + max(count, _WINDOW), self.size)
            self._window = self._lines(first, -(-end // width))
            self._window_at = first * width
            at = offset - self._window_at
        return self._window[at : at + count]

    def _lines(self, first: int, end: int) -> bytes:
        """Decode the lines from `first` up to, not including, `end`."""
        form = self._form
        start = form.text.start + first * form.step
        stop = min(form.text.start + end * form.step, form.text.end)
        text = form.text.source.read_at(start, stop - start).replace(b"\n", b"")
        if form.newline == b"\r\n":
            text = text.replace(b"\r", b"")
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error as error:
            raise Malformed(f"{_WHAT}: {error}") from None
        if len(data) != min(end * form.width, form.size) - first * form.width:
            raise Malformed(f"{_WHAT}: its lines are uneven")
        return data


def over(body: Region) -> Base64View | None:
    """Return the decoded view of a body; None when it is small, or its lines are not even."""
    if body.size <= IN_MEMORY:
        return None
    head = body.source.read_at(body.start, _LINE_MAX + 2)
    line, newline = head.find(b"\n"), b"\n"
    if head[:line].endswith(b"\r"):
        line, newline = line - 1, b"\r\n"
    if line <= 0 or line % 4 or not _LETTERS.fullmatch(head, 0, line):
        return None
    tail = body.source.read_at(body.end - len(head), len(head))
    text = tail.rstrip(b"\r\n")
    end = body.end - (len(tail) - len(text))
    whole, last = divmod(end - body.start, line + len(newline))
    if not text or not 0 < last <= line or last % 4:
        return None
    if not _are_even(Region(body.source, body.start, end - last), line, newline):
        return None
    size = whole * (line // 4 * 3) + last // 4 * 3 - (len(text) - len(text.rstrip(b"=")))
    return Base64View(_Form(Region(body.source, body.start, end), line, newline, size))


def _are_even(lines: Region, line: int, newline: bytes) -> bool:
    """Whether each line ends where it should. That none ends earlier is seen when it is decoded."""
    step, offset = line + len(newline), 0
    for chunk in lines.chunks():
        for place, character in enumerate(newline, line):
            ends = chunk[(place - offset) % step :: step]
            if ends.count(character) != len(ends):
                return False
        offset = (offset + len(chunk)) % step
    return True
