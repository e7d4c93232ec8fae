"""`hsmagent smime …`."""

from hsmagent.commands.mail import DaemonKeys
from hsmagent.mail import cli


def run(arguments: list[str]) -> int:
    """Run one verb; returns the exit status."""
    return cli.main(["smime", *arguments], DaemonKeys)
