"""`hsmagent doctor`: what is wrong with the set-up, and the remedy."""

import asyncio
import json
import os
from dataclasses import asdict

from hsmagent.cli.arguments import Given
from hsmagent.cli.output import on_terminal, write
from hsmagent.doctor.finding import Finding, State, Surroundings, surroundings
from hsmagent.doctor.report import findings, text, total


def run(given: Given) -> int:
    """Look, and print what is found as it is found. Return 1 if something does not work."""
    where = surroundings(given.value("--runtime-dir"), given.value("--config"))
    found = asyncio.run(_look(where, show=not given.flag("--json")))
    if given.flag("--json"):
        write(json.dumps(list(map(asdict, found)), indent=2, ensure_ascii=False) + "\n")
    return 1 if any(finding.state is State.BAD for finding in found) else 0


async def _look(where: Surroundings, *, show: bool) -> list[Finding]:
    colour = on_terminal() and "NO_COLOR" not in os.environ
    found = []
    async for finding in findings(where):
        found.append(finding)
        if show:
            write(text(finding, colour=colour))
    if show:
        write(total(found))
    return found
