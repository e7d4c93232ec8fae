"""What every management command needs from the command line: the place where it works."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from hsmagent.cli.arguments import Given
from hsmagent.cli.output import write
from hsmagent.cli.person import Terminal
from hsmagent.config import file as config
from hsmagent.config.discovery import modules
from hsmagent.manage.lease import let_go
from hsmagent.manage.place import Place
from hsmagent.worker.hardening import forbid_dumps


def run(
    given: Given, command: Callable[[Place], Awaitable[str | bytes | None]], *, yes: bool = False
) -> int:
    """Run a command of management; what it returns is its output. Raises HsmAgentError."""
    forbid_dumps()  # PINs are typed here
    named = given.value("--config")
    settings = config.load(Path(named or config.default_path()), required=bool(named))
    person = Terminal(from_stdin=given.flag("--stdin"), yes=yes)
    place = Place(modules(settings), person, let_go(given.value("--runtime-dir"), person))

    async def all_of_it() -> str | bytes | None:
        return await command(place)

    said = asyncio.run(all_of_it())
    if isinstance(said, bytes):
        sys.stdout.buffer.write(said)  # `main` flushes, and tells what goes wrong
    elif said:
        write(said.rstrip("\n") + "\n")
    return 0
