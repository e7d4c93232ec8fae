"""`hsmagent share …`, `key backup`, `restore`, `verify-backup`, `export`."""

import re
from pathlib import Path

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.errors import UsageError
from hsmagent.manage import backups, shares
from hsmagent.manage.place import Place


def make_share(given: Given) -> int:
    """`hsmagent share make`."""
    split = _split(given.value("--split"))
    return manage.run(given, lambda place: shares.make(place, Path(given.word), split))


def _split(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None:
        raise UsageError("--split needs a number such as 2/3")
    return int(found[1]), int(found[2])


def import_shares(given: Given) -> int:
    """`hsmagent share import`."""
    expect = shares.expected(given.value("--expect")) if given.value("--expect") else b""
    split = _parts(given)
    return manage.run(
        given, lambda place: shares.put(place, _paths(given), expect=expect, split=split)
    )


def save(given: Given) -> int:
    """`hsmagent key backup`."""
    *names, folder = given.words
    return manage.run(given, lambda place: backups.save(place, names, Path(folder)))


def restore(given: Given) -> int:
    """`hsmagent key restore`."""
    return manage.run(given, lambda place: backups.restore(place, _paths(given)))


def verify(given: Given) -> int:
    """`hsmagent key verify-backup`."""

    async def command(place: Place) -> str:
        return backups.verify(place, _paths(given), _shares(given), _parts(given))

    return manage.run(given, command)


def export(given: Given) -> int:
    """`hsmagent key export`."""
    out = given.value("--out")
    if not out or not _shares(given):
        raise UsageError("key export needs --share FILE, for each share, and --out FILE")

    async def command(place: Place) -> None:
        backups.export(place, Path(given.word), _shares(given), _parts(given), Path(out))

    return manage.run(given, command)


def _paths(given: Given) -> list[Path]:
    return [Path(word) for word in given.words]


def _shares(given: Given) -> list[Path]:
    return [Path(value) for value in given.values("--share")]


def _parts(given: Given) -> int:
    return given.number("--parts") or 0
