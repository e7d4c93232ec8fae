"""`hsmagent token …`: tokens made usable, and their PINs."""

from hsmagent.cli import manage
from hsmagent.cli.arguments import Given
from hsmagent.errors import UsageError
from hsmagent.manage import init as initialize
from hsmagent.manage import pins, tokens


def init(given: Given) -> int:
    """`hsmagent token init`."""
    number, none = given.number("--backup-shares"), given.flag("--no-backup")
    if none and number is not None:
        raise UsageError("--backup-shares and --no-backup say the opposite; give one of them")
    wish = initialize.Wish(given.value("--label"), initialize.NO_BACKUP if none else number)
    return manage.run(given, lambda place: initialize.init(place, wish))


def info(given: Given) -> int:
    """`hsmagent token info`."""
    return manage.run(given, tokens.info)


def pin(given: Given) -> int:
    """`hsmagent token pin`."""
    return manage.run(given, pins.change_pin)


def so_pin(given: Given) -> int:
    """`hsmagent token so-pin`."""
    return manage.run(given, pins.change_so_pin)


def unblock(given: Given) -> int:
    """`hsmagent token unblock`."""
    return manage.run(given, pins.unblock)
