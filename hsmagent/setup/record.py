"""The record of what setup has written, by which that can be upgraded and taken away."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from hsmagent.errors import HsmAgentError
from hsmagent.setup.pieces import make_folders, remove_empty, replace

FORMAT = 1


@dataclass(slots=True)
class Record:
    """What setup has written. written: path → its look when we wrote it. lines: path → our line.

    made: the folders, and the files of `lines`, that were not there before, the outermost first.
    """

    path: Path
    written: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record, empty if there is none. Raises HsmAgentError if it cannot be read."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError):
            raise _unreadable(path) from None
        try:
            kept = json.loads(text)
            if kept["format"] != FORMAT:
                raise _unreadable(path)
            record = cls(path, dict(kept["written"]), dict(kept["lines"]), list(kept["made"]))
        except (ValueError, TypeError, KeyError):
            raise _unreadable(path) from None
        for name in (*record.written, *record.lines, *record.made):
            if not isinstance(name, str) or not Path(name).is_absolute():
                raise _unreadable(path)
        return record

    def save(self) -> None:
        """Write it. Raises OSError."""
        self.note_folders(self.path.parent)
        kept = asdict(self) | {"format": FORMAT}
        del kept["path"]
        replace(self.path, (json.dumps(kept, indent=1) + "\n").encode(), 0o600)

    def note_folders(self, folder: Path) -> None:
        """Make a folder and those above it, and note which were not there."""
        self.made += [str(each) for each in make_folders(folder)]

    def leave_folder(self, folder: Path) -> None:
        """Take away a folder that we made, if nothing is in it any more."""
        if str(folder) in self.made and remove_empty(folder):
            self.made.remove(str(folder))

    def clear(self) -> None:
        """Take the record itself away, and the folders of ours that nobody has filled since."""
        self.path.unlink(missing_ok=True)
        for name in reversed(self.made):
            remove_empty(Path(name))


def _unreadable(path: Path) -> HsmAgentError:
    return HsmAgentError(f"{path}, where setup keeps what it wrote, cannot be read; move it away")
