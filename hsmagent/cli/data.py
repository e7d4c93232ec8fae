"""`hsmagent data …`: data objects in tokens."""

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.cli.cert import read_file
from hsmagent.manage import data


def listing(given: Given) -> int:
    """`hsmagent data list`."""
    private = given.flag("--private")
    return manage.run(given, lambda place: data.listing(place, private=private))


def read(given: Given) -> int:
    """`hsmagent data read`."""
    return manage.run(given, lambda place: data.read(place, _named(given, given.word)))


def write(given: Given) -> int:
    """`hsmagent data write`."""
    label, file = given.words
    content = read_file(file, data.LARGEST + 1)
    wish, application = _named(given, label), given.value("--application")
    return manage.run(given, lambda place: data.write(place, wish, application, content))


def delete(given: Given) -> int:
    """`hsmagent data delete`."""
    wish = _named(given, given.word)
    return manage.run(given, lambda place: data.delete(place, wish))


def _named(given: Given, label: str) -> data.Named:
    return data.Named(label, private=given.flag("--private"))
