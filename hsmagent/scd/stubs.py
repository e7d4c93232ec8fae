"""The stubs that GnuPG's agent keeps of keys on cards (gnupg/agent/keyformat.txt)."""

import re
from pathlib import Path

from hsmagent.scd.card import SERIAL

_GRIP = re.compile(r"[0-9A-F]{40}")


def path(folder: Path, grip: str) -> Path:
    """Return the path of a key's stub in GnuPG's folder. grip: the keygrip."""
    return folder / "private-keys-v1.d" / f"{grip.upper()}.key"


def read(folder: Path, grip: str) -> bytes:
    """Return a key's stub; b"" where there is none, or `grip` is no keygrip."""
    if not _GRIP.fullmatch(grip.upper()):
        return b""
    try:
        return path(folder, grip).read_bytes()
    except OSError:
        return b""


def is_ours(stub: bytes) -> bool:
    """Whether GnuPG has learned the key from our card: the stub holds its serial, raw or in hex."""
    ours = bytes.fromhex(SERIAL) in stub or SERIAL.encode() in stub
    return ours and b"shadowed-private-key" in stub


def forget(folder: Path) -> bool:
    """Delete the stubs of our card's keys, so that GnuPG does not ask for that card any more.

    Returns whether there was one.
    """
    named = (folder / "private-keys-v1.d").glob("*.key")
    ours = [file for file in named if is_ours(read(folder, file.stem))]
    for file in ours:
        file.unlink(missing_ok=True)
    return bool(ours)
