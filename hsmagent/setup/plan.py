"""From what is wanted, what we wrote before, and what is there: the steps to take.

The one rule: what we did not write, or what somebody has changed since, stays as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hsmagent.setup.pieces import (
    File,
    Line,
    Link,
    exchange_line,
    has_line,
    look_of,
    sets_option,
)
from hsmagent.setup.record import Record

Piece = File | Link | Line

CHANGED = "it was changed since setup wrote it"
FOREIGN = "setup did not write it"


class Verb(StrEnum):
    """What happens to a path."""

    WRITE = "write"
    UPGRADE = "upgrade"
    ADD = "add a line to"
    REMOVE = "remove"
    TAKE_OUT = "take our line out of"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Step:
    """One change. piece: what is put there, if anything is; why: of `LEAVE`."""

    verb: Verb
    path: Path
    piece: Piece | None = None
    why: str = ""


def placing(wanted: Sequence[Piece], record: Record) -> list[Step]:
    """Return the steps from what is there to what is wanted."""
    kept = {str(piece.path) for piece in wanted}
    steps = [step for piece in wanted for step in _placing(piece, record)]
    return steps + [step for step in removing(record) if str(step.path) not in kept]


def _placing(piece: Piece, record: Record) -> Iterator[Step]:
    if isinstance(piece, Line):
        before = record.lines.get(str(piece.path), "")
        if piece.option and sets_option(piece.path, piece.option, before or piece.text):
            yield Step(Verb.LEAVE, piece.path, why=f"{FOREIGN}: its {piece.option}")
        elif not has_line(piece.path, piece.text):
            yield Step(Verb.ADD, piece.path, piece)
        return
    there, written = look_of(piece.path), record.written.get(str(piece.path))
    if isinstance(piece, File) and piece.is_linked():
        return
    if there is None:
        yield Step(Verb.WRITE, piece.path, piece)
    elif there == piece.look:
        if written not in (None, there):  # an upgrade was interrupted before it was noted
            yield Step(Verb.UPGRADE, piece.path, piece)
    elif there == written:
        yield Step(Verb.UPGRADE, piece.path, piece)
    else:
        yield Step(Verb.LEAVE, piece.path, why=CHANGED if written else FOREIGN)


def removing(record: Record) -> list[Step]:
    """Return the steps that take away all that we wrote."""
    steps = []
    for name, written in record.written.items():
        path, there = Path(name), look_of(Path(name))
        if there in (written, None):
            steps.append(Step(Verb.REMOVE, path))
        else:
            steps.append(Step(Verb.LEAVE, path, why=CHANGED))
    steps += [Step(Verb.TAKE_OUT, Path(name)) for name in record.lines]
    return steps


def carry_out(step: Step, record: Record) -> None:
    """Take one step, and note it so that an interruption at any point does no harm.

    A new path is noted before it is written, since a noted one that is not there is written again.
    An upgrade is noted after it is written, since `_placing` recognises one that was not noted.
    Raises OSError.
    """
    name = str(step.path)
    match step.verb, step.piece:
        case Verb.WRITE, File() | Link() as piece:
            record.note_folders(step.path.parent)
            record.written[name] = piece.look
            record.save()
            piece.write()
        case Verb.UPGRADE, File() | Link() as piece:
            piece.write()
            record.written[name] = piece.look
            record.save()
        case Verb.ADD, Line() as piece:
            _add(piece, record)
        case Verb.REMOVE, _:
            step.path.unlink(missing_ok=True)
            del record.written[name]
            record.leave_folder(step.path.parent)
            record.save()
        case Verb.TAKE_OUT, _:
            _take_out(step.path, record)


def _add(piece: Line, record: Record) -> None:
    name = str(piece.path)
    record.note_folders(piece.path.parent)
    before = record.lines.get(name, "")
    if not piece.path.exists():
        record.made.append(name)
    # Noted under the new text first: a line of an earlier setup that stays behind does no harm.
    record.lines[name] = piece.text
    record.save()
    exchange_line(piece.path, before, piece.text)


def _take_out(path: Path, record: Record) -> None:
    name = str(path)
    if has_line(path, record.lines[name]):
        exchange_line(path, record.lines[name], "")
    if name in record.made:
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()
        record.made.remove(name)
    del record.lines[name]
    record.save()
