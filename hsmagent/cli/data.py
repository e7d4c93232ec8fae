"""`hsmagent data …`: data objects in tokens."""

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.cli.cert import read_file
from hsmagent.manage import data


def listing(given: Given) -> int:
    """`hsmagent data list`."""
    private, last_try = given.flag("--private"), given.flag("--last-try")
    return manage.run(
        given, lambda place: data.listing(place, given.word, private=private, last_try=last_try)
    )


def read(given: Given) -> int:
    """`hsmagent data read`."""
    return manage.run(given, lambda place: data.read(place, _named(given, given.word)))


def write(given: Given) -> int:
    """`hsmagent data write`."""
    label, file = given.words
    content = read_file(file, data.LARGEST + 1)
    wish, application = _named(given, label), given.value("--application")
    return manage.run(
        given,
        lambda place: data.write(place, wish, application, content),
        yes=given.flag("--yes"),
    )


def delete(given: Given) -> int:
    """`hsmagent data delete`."""
    wish = _named(given, given.word)
    return manage.run(given, lambda place: data.delete(place, wish), yes=given.flag("--yes"))


def _named(given: Given, label: str) -> data.Named:
    return data.Named(
        given.value("--token"),
        label,
        private=given.flag("--private"),
        last_try=given.flag("--last-try"),
    )
