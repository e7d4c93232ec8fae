"""`hsmagent smime …`."""

from hsmagent.commands import mail


def run(arguments: list[str]) -> int:
    """Run one verb; returns the exit status."""
    return mail.run("cli", ["smime", *arguments])
