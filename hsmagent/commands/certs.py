"""`hsmagent certs …`."""

from hsmagent.commands.mail import DaemonKeys
from hsmagent.mail import cli


def run(arguments: list[str]) -> int:
    """Add, list or remove certificates; returns the exit status."""
    return cli.main(["certs", *arguments], DaemonKeys)
