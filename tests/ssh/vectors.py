"""golden.json: what OpenSSH 9.2's ssh-add, ssh-keygen and ssh said to its ssh-agent, and heard.

The keys were made for it; the lifetime is 60 seconds, the host "host.example", the user "alice",
the PIN and the passphrase "1234".
"""

import json
from pathlib import Path

_ENTRIES = json.loads((Path(__file__).parent / "golden.json").read_text())

ALL: list[bytes] = [bytes.fromhex(entry["message"]) for entry in _ENTRIES]


def messages(during: str, sender: str = "client") -> list[bytes]:
    """Return what was said during one command."""
    return [
        message
        for entry, message in zip(_ENTRIES, ALL, strict=True)
        if (entry["during"], entry["from"]) == (during, sender)
    ]


def message(during: str, sender: str = "client") -> bytes:
    """Return the last message of one command."""
    return messages(during, sender)[-1]
