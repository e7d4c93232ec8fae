"""What a login showed of a token, kept for when nobody is logged in.

Some tokens hide their public keys until a login; and only a login tells which public keys have a
private half, and which of these want the PIN for each use. Besides, reading a card may take long:
until it is read, its keys are listed as they were. What is kept is one small JSON file per token in
the state folder, 0600, replaced in one step. Nothing in it is secret; a file that does not make
sense counts as none.
"""

import hashlib
import json
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsmagent.model import Key, TokenId
from hsmagent.token.objects import Listing, key_of

log = logging.getLogger(__name__)

_NAMES = ("module", "label", "serial", "model", "manufacturer")
_FLAGS = ("always_authenticate", "can_sign", "can_decrypt", "can_derive")


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a token.

    keys: by SPKI. hidden: the SPKI of those that only a login shows. orphans: the SPKI of public
    keys without a private half.
    """

    keys: Mapping[bytes, Key]
    hidden: frozenset[bytes] = frozenset()
    orphans: frozenset[bytes] = frozenset()

    def complete(self, listing: Listing) -> Listing:
        """Return a listing without a login as it would be with one, as far as is known."""
        known = []
        for key in listing.keys:
            if key.spki in self.orphans:
                continue
            old = self.keys.get(key.spki)
            known.append(key if old is None else replace(key, **_flags(old)))
        listed = {key.spki for key in listing.keys}
        known += [key for spki, key in self.keys.items() if spki in self.hidden - listed]
        return replace(listing, keys=tuple(sorted(known, key=lambda key: (key.id, key.label))))


def _flags(key: Key) -> dict[str, Any]:
    return {flag: getattr(key, flag) for flag in _FLAGS}


def memory_of(listing: Listing, public: frozenset[bytes]) -> Memory:
    """Return what to remember of a listing under a login; `public` is what shows without one."""
    keys = {key.spki: key for key in listing.keys}
    return Memory(keys, frozenset(keys) - public, listing.orphans)


class Memories:
    """The files, in `folder`, which is made when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[TokenId, Memory] = {}

    def of(self, token: TokenId) -> Memory:
        """Return what is remembered of a token; an empty Memory if nothing is."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def of_module(self, path: str) -> dict[TokenId, Memory]:
        """Return what is remembered of a module's tokens, the one that was used last first."""
        found: dict[TokenId, tuple[float, Memory]] = {}
        for file in self._folder.glob("token-*.json"):
            try:
                stored = json.loads(file.read_bytes())
                token = TokenId(**{name: str(stored["token"][name]) for name in _NAMES})
                if token.module == path and self._path(token) == file:
                    found[token] = file.stat().st_mtime, _from_json(token, stored)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # `of` logs a warning when that token is asked about
        latest = sorted(found, key=lambda token: found[token][0], reverse=True)
        return {token: found[token][1] for token in latest}

    def keep(self, token: TokenId, memory: Memory) -> None:
        """Remember. If the folder cannot be written, it is remembered until the daemon ends."""
        path = self._path(token)
        if memory == self.of(token):
            with suppress(OSError):
                os.utime(path)
            return
        self._known[token] = memory
        fresh = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.touch(mode=0o600)
            with fresh.open("w") as file:
                json.dump(_to_json(token, memory), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            log.warning("the public keys of a token are not remembered: %s", error)

    def _path(self, token: TokenId) -> Path:
        name = hashlib.sha256(f"{token.module}\n{token.uri}".encode()).hexdigest()
        return self._folder / f"token-{name[:32]}.json"

    def _read(self, token: TokenId) -> Memory:
        try:
            return _from_json(token, json.loads(self._path(token).read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("what was remembered of a token cannot be read: %s", type(error).__name__)
        return Memory({})


def _to_json(token: TokenId, memory: Memory) -> dict[str, Any]:
    return {
        "token": {name: getattr(token, name) for name in _NAMES},
        "keys": [
            {
                "spki": b64encode(key.spki).decode(),
                "id": key.id.hex(),
                "label": key.label,
                "certificates": [b64encode(der).decode() for der in key.certificates],
                "hidden": key.spki in memory.hidden,
                **_flags(key),
            }
            for key in memory.keys.values()
        ],
        "orphans": [b64encode(spki).decode() for spki in sorted(memory.orphans)],
    }


def _from_json(token: TokenId, stored: dict[str, Any]) -> Memory:
    keys: dict[bytes, Key] = {}
    hidden = set()
    for one in stored["keys"]:
        flags: dict[str, Any] = {flag: bool(one[flag]) for flag in _FLAGS}
        key = replace(
            key_of(token, b64decode(one["spki"])),
            id=bytes.fromhex(one["id"]),
            label=str(one["label"]),
            certificates=tuple(b64decode(der) for der in one["certificates"]),
            **flags,
        )
        keys[key.spki] = key
        if one["hidden"]:
            hidden.add(key.spki)
    orphans = frozenset(b64decode(spki) for spki in stored["orphans"])
    return Memory(keys, frozenset(hidden), orphans)
