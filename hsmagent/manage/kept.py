"""Which backups were made here, so that `key delete` can say whether a key has one.

One line for each backup: the hash of the public key, the file and the day. None of that is secret.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hsmagent.folders import state_folder
from hsmagent.model import Key

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that was made here: its file, which may have gone since, and the day (ISO 8601)."""

    path: Path
    day: str


def remember(key: Key, path: Path) -> None:
    """Note a backup. Raises OSError."""
    line = {"key": _name(key), "file": str(path.resolve()), "day": f"{datetime.now(UTC):%Y-%m-%d}"}
    file = _file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # O_APPEND: two commands at one time each add a line of their own.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(json.dumps(line).encode() + b"\n")


def backups_of(key: Key) -> tuple[Kept, ...]:
    """Return the backups of a key that were made here, the newest first."""
    found = {entry.path: entry for name, entry in _entries() if name == _name(key)}
    return tuple(reversed(found.values()))


def _entries() -> Iterator[tuple[str, Kept]]:
    try:
        with _file().open("rb") as file:
            lines = file.read(_LARGEST).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            said = json.loads(line)
            yield str(said["key"]), Kept(Path(said["file"]), str(said["day"]))
        except (ValueError, KeyError, TypeError):
            continue


def _file() -> Path:
    return Path(state_folder(), "backups.jsonl")


def _name(key: Key) -> str:
    return hashlib.sha256(key.spki).hexdigest()
