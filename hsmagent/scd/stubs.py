"""What GnuPG's agent notes of keys on cards: a stub for each (gnupg/agent/keyformat.txt)."""

import re
from collections.abc import Mapping
from pathlib import Path

from hsmagent.scd.card import SERIAL

_GRIP = re.compile(r"[0-9A-F]{40}")


def home(env: Mapping[str, str]) -> Path:
    """Return GnuPG's folder, of the person whose environment this is."""
    return Path(env.get("GNUPGHOME") or f"{env.get('HOME', '')}/.gnupg")


def path(folder: Path, grip: str) -> Path:
    """Return where the stub of a key is, in GnuPG's folder."""
    return folder / "private-keys-v1.d" / f"{grip.upper()}.key"


def read(folder: Path, grip: str) -> bytes:
    """Return the stub of a key in GnuPG's folder; b"" where there is none, or for no keygrip."""
    if not _GRIP.fullmatch(grip.upper()):
        return b""
    try:
        return path(folder, grip).read_bytes()
    except OSError:
        return b""


def is_ours(stub: bytes) -> bool:
    """Whether GnuPG has learned the key from our card. Its number is there as bytes, or in hex."""
    return bytes.fromhex(SERIAL) in stub or SERIAL.encode() in stub
