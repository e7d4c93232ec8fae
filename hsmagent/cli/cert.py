"""`hsmagent cert …`: certificates in tokens, and requests for them."""

import sys
from pathlib import Path

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.errors import HsmAgentError
from hsmagent.manage import certs, files
from hsmagent.manage.requests import Named, named

_DAYS = 365


def request(given: Given) -> int:
    """`hsmagent cert request`."""
    who = _who(given)
    return manage.run(given, lambda place: certs.request(place, given.word, who))


def self_sign(given: Given) -> int:
    """`hsmagent cert self-sign`."""
    who = _who(given)
    number = given.number("--days")
    days = _DAYS if number is None else number
    return manage.run(given, lambda place: certs.self_sign(place, given.word, who, days))


def _who(given: Given) -> Named:
    return named(given.value("--subject"), given.values("--email"))


def put(given: Given) -> int:
    """`hsmagent cert import`."""
    content = read_file(given.word)
    key = given.value("--key")
    return manage.run(given, lambda place: certs.put(place, content, key))


def read_file(name: str, most: int = files.LARGEST) -> bytes:
    """Return up to `most` bytes of a file, or of standard input for "-". Raises HsmAgentError."""
    if name != "-":
        return files.read(Path(name), most)
    try:
        return sys.stdin.buffer.read(most)
    except OSError as error:
        raise HsmAgentError(f"cannot read standard input: {error.strerror}") from None


def export(given: Given) -> int:
    """`hsmagent cert export`."""
    return manage.run(given, lambda place: certs.export(place, given.word))


def delete(given: Given) -> int:
    """`hsmagent cert delete`."""
    return manage.run(given, lambda place: certs.delete(place, given.word))


def listing(given: Given) -> int:
    """`hsmagent cert list`."""
    return manage.run(given, certs.listing)
