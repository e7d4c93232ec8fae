"""The pieces that setup puts in place: a file, a link, a line in a file of the person's.

Each piece has a look, which is compared with the look of what is on the disk: so what somebody else
wrote or changed is told from what we wrote.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class File:
    """A whole file of ours."""

    path: Path
    content: bytes

    @property
    def look(self) -> str:
        """What `look_of` says of it once it is written."""
        return _digest(self.content)

    def is_linked(self) -> bool:
        """Whether somebody else has put a link there that leads to the same (pipx does)."""
        return self.path.is_symlink() and _reads(self.path) == self.content

    def write(self) -> None:
        """Write it at once and whole, readable by all. Raises OSError."""
        replace(self.path, self.content, 0o644)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link of ours."""

    path: Path
    target: Path

    @property
    def look(self) -> str:
        """What `look_of` says of it once it is made."""
        return f"link:{self.target}"

    def write(self) -> None:
        """Make it, in place of what is there. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(self.target)


@dataclass(frozen=True, slots=True)
class Line:
    """One line in a file that is the person's own, such as ~/.profile.

    option: the word that it begins with, where no other line may begin with the same.
    """

    path: Path
    text: str
    option: str = ""


def look_of(path: Path) -> str | None:
    """Return what a path looks like, so that a change shows; None: nothing is there."""
    if path.is_symlink():
        return f"link:{path.readlink()}"
    if path.is_file():
        return _digest(path.read_bytes())
    return "other" if path.exists() else None


def _reads(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that nobody ever sees half of it. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# -- lines -----------------------------------------------------------------------------------


def has_line(path: Path, text: str) -> bool:
    """Whether the file has exactly this line."""
    return text.encode() in _lines(path)


def sets_option(path: Path, option: str, but: str) -> bool:
    """Whether a line of the file begins with this word; other lines than `but`."""
    lines = (line for line in _lines(path) if line != but.encode())
    return any(line.split()[:1] == [option.encode()] for line in lines)


def exchange_line(path: Path, old: str, new: str) -> None:
    """Take the line `old` out of the file, and append the line `new`; either may be "".

    A link is followed: many keep such files elsewhere. Raises OSError.
    """
    lines = [line for line in _lines(path) if not old or line != old.encode()]
    if new:
        lines.append(new.encode())
    real = path.resolve()
    content = b"".join(line + b"\n" for line in lines)
    replace(real, content, real.stat().st_mode & 0o7777 if real.exists() else 0o644)


def _lines(path: Path) -> list[bytes]:
    content = path.read_bytes() if path.is_file() else b""
    return content.removesuffix(b"\n").split(b"\n") if content else []


# -- folders ---------------------------------------------------------------------------------


def make_folders(path: Path) -> list[Path]:
    """Make a folder and what is missing above it; return those made, the outermost first."""
    missing = [each for each in (path, *path.parents) if not each.exists()][::-1]
    for folder in missing:
        folder.mkdir(mode=0o700)  # XDG Base Directory Specification; GnuPG wants it, too
    return missing


def remove_empty(path: Path) -> bool:
    """Take a folder away if nothing is in it; return whether it is gone."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
