"""What the keys were used for: who, what, where, when, and what was refused and why.

Entries are kept in memory and in two small files of the state folder, and sent to journald where
that runs. They hold no secret: an entry is made of a frozen Request.

Uses of the tokens' keys have a file of their own: a client can have any number of requests refused,
and use any number of keys that it added, and must not push the uses of a token out.

A first use is written at once, when its reply is out. What follows within a second is gathered and
written together, and repeats become one line with a count, so that a thousand signatures a second
cost the log little.
"""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmagent.door.journal import Journal
from hsmagent.limit import Budgets
from hsmagent.model import (
    Key,
    KeyType,
    Peer,
    Purpose,
    PurposeKind,
    Request,
    TokenId,
    printable,
    token_name,
)

log = logging.getLogger(__name__)

KEPT = 2000
OTHERS_KEPT = 1000
MOMENT = 0.02  # seconds, in which replies go out before anybody looks at what they were
GATHER = 1.0  # seconds
# So many lines an hour a process has for itself. Its further requests are counted, in a line a
# minute, so that a process whose requests all differ pushes no other's lines out.
SHARE, SHARE_WINDOW, FOLD = 300, 3600.0, 60.0
MAX_FILE = 512 << 10  # one older file of this size is kept beside it
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_NAME = "activity.jsonl"  # uses of tokens' keys
OTHER_NAME = "activity-other.jsonl"  # uses of added keys; what was refused or failed

USED, REFUSED, FAILED = "used", "refused", "failed"
ASKED, WRONG_PIN = "asked", "wrong-pin"

# The MESSAGE_ID of each outcome, for journalctl (docs/desktop.md lists them).
MESSAGE_IDS = {
    USED: "b8c1ab3620c14f2f9b3c5a6d7e0f1a41",
    REFUSED: "2f4d8a6e94f34b438a8e7c1d25b90f52",
    FAILED: "6d0e7f5b3a1c4c68b7f4e19a82c6d063",
    ASKED: "5f97486d5d6045c68c04588bab55f008",
    WRONG_PIN: "d4b1f6a08f3e4a579c5d20e7b6a91c3f",
}
_PRIORITIES = {USED: 6, REFUSED: 5, FAILED: 4, ASKED: 5, WRONG_PIN: 4}  # info, notice, warning
_VERBS = {
    USED: "used",
    REFUSED: "was refused",
    FAILED: "failed to use",
    ASKED: "asked to use",
    WRONG_PIN: "asked to use",
}

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds: `loop.call_later`."""

Line = dict[str, Any]
"""An entry as JSON; docs/desktop.md tells the fields."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "time": (int, float),
    "forwarded": bool,
    **dict.fromkeys(("count", "pid", "uid"), int),
    **dict.fromkeys(("outcome", "reason", "purpose", "summary", "key", "key_uri"), str),
    **dict.fromkeys(("token", "program", "chain", "destination"), str),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and what became of it.

    time: seconds since 1970. outcome: "used", "refused" or "failed"; before one of these there may
    be an "asked", where a person was asked in a terminal, and a "wrong-pin" for each PIN that was
    wrong. reason: the sentence that says why the key was not used, or what happened before; else
    "".
    """

    time: float
    request: Request
    outcome: str
    reason: str = ""


def _never(_seconds: float, _call: Callable[[], None]) -> None:
    """Never call back: whoever only reads the log writes nothing."""


_Gathered = dict[tuple[object, ...], tuple[Entry, int]]
"""What makes entries the same → the first such entry, and how many there were."""


def _to_nobody(_entry: Entry) -> None:
    """Tell nobody else of an entry."""


class Activity:
    """The log. `folder` None: in memory only (a private instance leaves no trace).

    tell: told each entry, too, once it is noted down.
    """

    def __init__(
        self,
        folder: Path | None,
        later: Later = _never,
        journal: Journal | None = None,
        tell: Callable[[Entry], None] = _to_nobody,
    ) -> None:
        self._file = folder / FILE_NAME if folder else None
        self._other_file = folder / OTHER_NAME if folder else None
        self._later = later
        self._journal = journal
        self._tell = tell
        self._recorded: list[Entry] = []
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._others: deque[Line] = deque(maxlen=OTHERS_KEPT)
        self._news: deque[Line] = deque(maxlen=OTHERS_KEPT)  # those since we started, in order
        self._told = 0  # how many of these there have been
        for file in filter(None, (self._file, self._other_file)):
            self._keep(*_parted(_remembered(file)))
        self._budgets = Budgets(SHARE, SHARE_WINDOW, time.monotonic)
        self._gathered: _Gathered = {}
        self._folded: _Gathered = {}
        self._folding = False
        self._gathering = False

    def record(self, entry: Entry) -> None:
        """Take an entry, which is noted down in a moment: whoever asked has its reply first."""
        self._recorded.append(entry)
        if len(self._recorded) == 1:
            self._later(MOMENT, self._note_down)

    def _note_down(self) -> None:
        recorded, self._recorded = self._recorded, []
        for entry in recorded:
            self._note(entry)
            try:
                self._tell(entry)
            except Exception:
                log.exception("nobody could be told of a use")

    def _note(self, entry: Entry) -> None:
        """Note an entry down. Never raises: a full disk must not stop a signature."""
        request = entry.request
        same: tuple[object, ...] = (
            *(request.key.spki, request.peer.process, request.purpose, request.destination),
            *(entry.outcome, entry.reason),
        )
        before = self._gathered.get(same)
        if before is None and not self._budgets.admit(request.peer.process.pid):
            self._fold(entry)
            return
        first, count = before or (entry, 0)
        self._gathered[same] = (first, count + 1)
        if not self._gathering:
            self._end_of_gathering()
            self._gathering = True
            self._later(GATHER, self._end_of_gathering)

    def _fold(self, entry: Entry) -> None:
        """Count an entry of a process that has had its share of lines."""
        same = (entry.request.peer.process.pid, entry.request.key.token, entry.outcome)
        first, count = self._folded.get(same, (entry, 0))
        self._folded[same] = (first, count + 1)
        if not self._folding:
            self._folding = True
            self._later(FOLD, self._end_of_folding)

    def entries(self, since: float = 0.0) -> list[Line]:
        """Return the newest entries from `since` (seconds since 1970), oldest first."""
        self.flush()
        newest = [line for line in (*self._lines, *self._others) if line["time"] >= since]
        return sorted(newest, key=lambda line: line["time"])

    def news(self, seen: int) -> tuple[int, list[Line]]:
        """Return how many lines were written down so far, and those after the first `seen`.

        What is still gathered comes with a later call. Of too many lines, the newest come.
        """
        self._note_down()
        new = min(max(self._told - seen, 0), len(self._news))
        return self._told, list(self._news)[len(self._news) - new :]

    def last_use(self, token: str) -> Line | None:
        """Return the newest use of a key of the token of this name (`token_name`), if any."""
        self._note_down()
        return next((line for line in reversed(self._lines) if line["token"] == token), None)

    def flush(self) -> None:
        """Write what was gathered; the daemon does so before it leaves."""
        self._note_down()
        self._write_down(self._gathered, self._folded)
        self._gathered, self._folded = {}, {}

    def _write_down(self, *parts: _Gathered) -> None:
        lines = [line_of(entry, count) for part in parts for entry, count in part.values()]
        if not lines:
            return
        for line in lines:
            self._send(line)
        self._told += len(lines)
        self._news.extend(lines)
        ours, others = _parted(lines)
        self._keep(ours, others)
        _write(self._file, ours)
        _write(self._other_file, others)

    def _keep(self, ours: Iterable[Line], others: Iterable[Line]) -> None:
        self._lines.extend(ours)
        self._others.extend(others)

    def _end_of_gathering(self) -> None:
        self._gathering = False
        gathered, self._gathered = self._gathered, {}
        if gathered:
            self._write_down(gathered)

    def _end_of_folding(self) -> None:
        self._folding = False
        folded, self._folded = self._folded, {}
        self._write_down(folded)

    def _send(self, line: Line) -> None:
        if self._journal is None:
            log.info("%s", sentence(line))
        else:
            self._journal.send(_journal_fields(line))


def _parted(lines: Iterable[Line]) -> tuple[list[Line], list[Line]]:
    """Part the uses of tokens' keys from all other lines."""
    ours: list[Line] = []
    others: list[Line] = []
    for line in lines:
        (ours if line["key_uri"] and line["outcome"] == USED else others).append(line)
    return ours, others


def wish_to_unlock(token: TokenId, peer: Peer) -> Request:
    """Return the request to unlock a token, which is for no key in particular."""
    key = Key(b"", KeyType.OTHER, 0, token=token)
    return Request(key, Purpose(PurposeKind.UNKNOWN, "unlock the token"), peer)


# -- an entry in JSON, in words, in the journal ----------------------------------------------


def line_of(entry: Entry, count: int = 1) -> Line:
    """Return an entry as JSON values; foreign text is made printable."""
    request = entry.request
    peer, destination = request.peer, request.destination
    return {
        "time": round(entry.time, 3),
        "count": count,
        "outcome": entry.outcome,
        "reason": printable(entry.reason, 400),
        "purpose": str(request.purpose.kind),
        "summary": printable(request.purpose.summary, 200),
        "key": printable(request.key.label),
        "key_uri": request.key.uri if request.key.spki else "",
        "token": token_name(request.key.token) if request.key.token else "",
        "program": request.peer.process.program,
        "chain": peer.chain,
        "pid": peer.process.pid,
        "uid": peer.uid,
        "destination": printable(destination.host) if destination else "",
        "forwarded": destination is not None and destination.forwarded,
    }


def sentence(line: Line) -> str:
    """Return a line in words, without its time."""
    words = f"{line['chain']} {_wish(line)}"
    if line["destination"]:
        words += f" at {line['destination']}" + (" (forwarded)" if line["forwarded"] else "")
    if line["count"] > 1:
        words += f", {line['count']} times"
    return words + (f": {line['reason']}" if line["reason"] else "")


def _wish(line: Line) -> str:
    """Return what was done or wanted. A line with a token but no key is of an unlock."""
    if line["token"] and not line["key_uri"]:
        return f"asked to unlock {line['token']}"
    key = f"“{line['key']}”" if line["key"] else "a key without a label"
    if line["token"]:
        key += f" of {line['token']}"
    return f"{_VERBS.get(line['outcome'], line['outcome'])} {key} to {line['summary']}"


def _journal_fields(line: Line) -> dict[str, str]:
    outcome = line["outcome"]
    fields = {
        "MESSAGE": sentence(line),
        "PRIORITY": str(_PRIORITIES.get(outcome, 5)),
        "SYSLOG_IDENTIFIER": "hsmagent",
    }
    if outcome in MESSAGE_IDS:
        fields["MESSAGE_ID"] = MESSAGE_IDS[outcome]
    names = ("outcome", "reason", "purpose", "key", "key_uri", "token", "chain", "pid", "count")
    fields |= {f"HSMAGENT_{name.upper()}": str(line[name]) for name in names}
    if line["destination"]:
        fields["HSMAGENT_DESTINATION"] = line["destination"]
        fields["HSMAGENT_FORWARDED"] = str(line["forwarded"]).lower()
    return fields


# -- the file --------------------------------------------------------------------------------


def _remembered(file: Path) -> Iterator[Line]:
    for part in (_older(file), file):
        with suppress(OSError):
            yield from _read(part.read_bytes()[-2 * MAX_FILE :])


def _write(file: Path | None, lines: list[Line]) -> None:
    if file is None or not lines:
        return
    try:
        _append(file, lines)
    except OSError as error:
        log.warning("cannot write the activity log %s: %s", file, error)


def _append(file: Path, lines: list[Line]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    content = text.encode("utf-8", "replace")[-MAX_FILE:]
    descriptor = _open(file)
    try:
        if os.fstat(descriptor).st_size + len(content) > MAX_FILE:
            file.replace(_older(file))
            os.close(descriptor)
            descriptor = _open(file)
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    name = str(file)  # a Path costs several calls each time it is used
    try:
        return os.open(name, _APPEND, 0o600)
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(name, _APPEND, 0o600)


def _older(file: Path) -> Path:
    return file.with_name(file.name + ".1")


def _read(content: bytes) -> Iterator[Line]:
    """Return the lines of a file that can be read; a crash may have cut one, or an editor."""
    for raw in content.split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and all(
            isinstance(line.get(name), kind) for name, kind in _KINDS.items()
        ):
            yield line
