"""`hsmagent key …`: keys in tokens."""

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.errors import UsageError
from hsmagent.manage import keys, proof
from hsmagent.manage.kinds import SSH, USES


def new(given: Given) -> int:
    """`hsmagent key new`."""
    uses = tuple(dict.fromkeys((given.value("--for") or SSH).split(",")))
    if not set(uses) <= set(USES):
        raise UsageError(f"--for is {' or '.join(USES)}, or both with a comma")
    wish = keys.Wish(given.word, given.value("--label"), uses)
    return manage.run(given, lambda place: keys.new(place, wish))


def test(given: Given) -> int:
    """`hsmagent key test`."""
    return manage.run(given, lambda place: proof.try_out(place, given.word))


def rename(given: Given) -> int:
    """`hsmagent key rename`."""
    name, label = given.words
    return manage.run(given, lambda place: keys.rename(place, name, label))


def delete(given: Given) -> int:
    """`hsmagent key delete`."""
    both = given.flag("--with-cert")
    return manage.run(given, lambda place: keys.delete(place, given.word, with_certificate=both))
