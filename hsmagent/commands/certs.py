"""`hsmagent certs …`."""

from hsmagent.commands import mail


def run(arguments: list[str]) -> int:
    """Add, list or remove certificates; returns the exit status."""
    return mail.run("cli", ["certs", *arguments])
