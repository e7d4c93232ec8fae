"""Files that management makes: new ones only, readable by their owner alone."""

import os
from pathlib import Path

from hsmagent.errors import HsmAgentError, UsageError

LARGEST = 1 << 20  # bytes


def create(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet, and see that it is on the disk.

    Raises HsmAgentError; nothing is left behind then.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already; nothing was overwritten") from None
    except OSError as error:
        raise HsmAgentError(f"cannot make {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HsmAgentError(f"cannot write {path}: {error.strerror}") from None


def need_new(path: Path) -> None:
    """Refuse a path that is taken, or whose folder is not there. Raises UsageError."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already")
    need_folder(path.parent)


def need_folder(path: Path) -> None:
    """Refuse a folder that is not there. Raises UsageError."""
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}")


def read(path: Path, most: int = LARGEST) -> bytes:
    """Return up to `most` bytes of a file. Raises HsmAgentError."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise HsmAgentError(f"cannot read {path}: {error.strerror}") from None
