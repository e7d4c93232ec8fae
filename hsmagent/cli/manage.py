"""What every management command needs: its `Place`, made from the command line."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from hsmagent.cli.arguments import Given
from hsmagent.cli.command import SOME_TOKEN
from hsmagent.cli.output import write
from hsmagent.cli.person import Terminal
from hsmagent.config import file as config
from hsmagent.config.discovery import modules
from hsmagent.manage.lease import Lender
from hsmagent.manage.place import Place
from hsmagent.worker.hardening import forbid_dumps


def run(given: Given, command: Callable[[Place], Awaitable[str | bytes | None]]) -> int:
    """Run a command of management, and print what it returns. Raises HsmAgentError."""
    forbid_dumps()  # PINs are typed here
    # No log lines about workers: the person learns of a failure by the error.
    logging.getLogger("hsmagent").addHandler(logging.NullHandler())
    named = given.value("--config")
    settings = config.load(Path(named or config.default_path()), required=bool(named))
    person = Terminal(from_stdin=given.flag("--stdin"), yes=_flag(given, "--yes"))
    place = Place(
        modules(settings),
        person,
        Lender(given.value("--runtime-dir"), person),
        on=_token(given),
        last_try=_flag(given, "--last-try"),
    )

    async def all_of_it() -> str | bytes | None:
        return await command(place)

    said = asyncio.run(all_of_it())
    if isinstance(said, bytes):
        sys.stdout.buffer.write(said)  # `main` flushes, and tells what goes wrong
    elif said:
        write(said.rstrip("\n") + "\n")
    return 0


def _flag(given: Given, name: str) -> bool:
    """Whether a flag was given; False for a command that does not have it."""
    return given.command.option(name) is not None and given.flag(name)


def _token(given: Given) -> str:
    """Return the token that was named, by the option or by a command's only argument."""
    if SOME_TOKEN in given.command.arguments:
        return given.word
    return given.value("--token") if given.command.option("--token") else ""
