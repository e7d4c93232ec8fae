"""The daemon's answers as a terminal shows them: at a glance, in colour where it can.

What goes into a pipe is `show`'s, and plain. Imports next to nothing: it is on the quick path.
"""

import os
import sys
import time

from hsmagent.cli import show
from hsmagent.control.client import NONE_PRESENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Answer = dict[str, Any]

# SGR parameters (ECMA-48, 8.3.117).
_BOLD, _DIM, _RED, _GREEN, _YELLOW = 1, 2, 31, 32, 33
_CELLS = 20
_LITTLE = 0.25  # of the time that a login lasts unused
_ASCII = str.maketrans("●○◆━─✓✗←“”…•", '*o>=-+x<""~-')

_MARKS = {
    "used": ("✓", _GREEN),
    "refused": ("✗", _RED),
    "failed": ("✗", _RED),
    "asked": ("◆", _YELLOW),
    "wrong-pin": ("✗", _YELLOW),
}


def _paint(text: str, code: int) -> str:
    """Return text in a colour, where the terminal has colours and NO_COLOR is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    if plain or not (text and code):
        return text
    return f"\x1b[{code}m{text}\x1b[m"


def _clean(text: str) -> str:
    """Replace what a terminal would obey. `model.printable` does the same, but imports too much."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _in_its_letters(text: str) -> str:
    """Return what is to be shown, in ASCII where the terminal's encoding is not UTF."""
    encoding = ((sys.stdout and sys.stdout.encoding) or "").lower()
    return text if encoding.startswith("utf") else text.translate(_ASCII)


# -- status ----------------------------------------------------------------------------------


def status(answer: "Answer") -> str:
    """Lay out `hsmagent status`: what waits for a person, then each token."""
    blocks = ["".join(map(_waiting, show.waiting(answer)))]
    blocks += [*map(_token, answer["tokens"])] or [f"{NONE_PRESENT}\n"]
    wrong, notes = show.beside_tokens(answer)
    blocks.append("\n".join([*map(_clean, [*wrong, *notes]), ""]))
    return _in_its_letters("\n".join(filter(None, blocks)))


def _waiting(each: "tuple[str, str]") -> str:
    return f"{_paint(f'◆ {each[0]}:', _YELLOW)} {_clean(each[1])}\n"


def _token(token: "Answer") -> str:
    name = _paint(_clean(token["label"]), _BOLD)
    lines = [f"{_dot(token)} {name}"]
    for title, text in show.rows(token):
        said = _paint(_clean(text), _colour(title, token))
        lines.append(_row(title, said))
        if title == "login":
            lines += [*_left(token), *_last_use(token)]
    return "".join(f"{line}\n" for line in lines)


def _row(title: str, said: str) -> str:
    return f"  {_paint(f'{title:10}', _DIM)}{said}"


def _dot(token: "Answer") -> str:
    if token["last_error"] or token["pin_state"] in {"final-try", "locked"}:
        return _paint("●" if token["logged_in"] else "○", _RED)
    return _paint("●", _GREEN) if token["logged_in"] else _paint("○", _DIM)


def _colour(title: str, token: "Answer") -> int:
    if title == "trouble" or (title == "PIN" and token["pin_state"] in {"final-try", "locked"}):
        return _RED
    if title == "note" or (title == "PIN" and token["pin_state"] != "ok"):
        return _YELLOW
    if title == "login":
        return _GREEN if token["logged_in"] else 0
    return _DIM if title in {"model", "module"} else 0


def _left(token: "Answer") -> "Iterable[str]":
    """Yield a bar for how much is left of a login's time. An older daemon does not tell enough."""
    if token["logged_in"] and token.get("idle_limit") and token.get("login_age") is not None:
        left = min(token["idle_left"], token["max_left"])
        part = left / min(token["idle_limit"], token["login_age"] + token["max_left"])
        full, rest = bar(part)
        colour = _YELLOW if part < _LITTLE else _GREEN
        since = f"unlocked {show.span(token['login_age'])} ago"
        yield _row("", f"{_paint(full, colour)}{_paint(rest, _DIM)} {_paint(since, _DIM)}")


def _last_use(token: "Answer") -> "Iterable[str]":
    use = token.get("last_use")
    if use:
        ago = show.span(max(time.time() - use["time"], 0))
        yield _row("last use", _cut(f"{ago} ago: {_clean(use['text'])}"))


def _cut(text: str) -> str:
    """Cut what would not fit beside a title into a line of the terminal."""
    try:
        room = os.get_terminal_size().columns - len("  last use  ")
    except OSError:
        return text
    return text if len(text) <= room else f"{text[: room - 1]}…"


def bar(part: float, cells: int = _CELLS) -> "tuple[str, str]":
    """Return the full and the empty cells for a part from 0 to 1; above 0 one cell is full."""
    full = min(max(round(part * cells), part > 0), cells)
    return "━" * full, "─" * (cells - full)


# -- log -------------------------------------------------------------------------------------


class Log:
    """Lays out `hsmagent log` as it comes: by day, and by the programs that asked."""

    def __init__(self) -> None:
        self._day = self._chain = ""

    def lay_out(self, entries: "list[Answer]") -> str:
        """Return the next entries, under their headings."""
        return _in_its_letters("".join(map(self._entry, entries)))

    def _entry(self, entry: "Answer") -> str:
        when = time.localtime(entry["time"])
        day, chain = time.strftime("%A, %Y-%m-%d", when), entry["chain"]
        head = ""
        if day != self._day:
            head += ("\n" if self._day else "") + _paint(day, _BOLD) + "\n"
            self._chain = ""
        if chain != self._chain:
            head += f"  {_clean(chain)}\n"
        self._day, self._chain = day, chain
        mark, colour = _MARKS.get(entry["outcome"], ("•", 0))
        text = _clean(entry["text"].removeprefix(f"{chain} "))
        if colour == _RED:
            text = _paint(text, colour)
        at = _paint(time.strftime("%H:%M:%S", when), _DIM)
        return f"{head}    {at} {_paint(mark, colour)} {text}\n"


def log(answer: "Answer") -> str:
    """Lay out `hsmagent log`."""
    return Log().lay_out(answer["entries"])
