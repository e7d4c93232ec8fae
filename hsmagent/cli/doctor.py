"""`hsmagent doctor`: what is wrong with the set-up, and the remedy."""

import asyncio
import json
import os
import sys
from dataclasses import asdict

from hsmagent.cli.arguments import Given
from hsmagent.doctor.finding import State, surroundings
from hsmagent.doctor.report import findings, text


def run(given: Given) -> int:
    """Look, and print what was found. Return 1 if something does not work."""
    where = surroundings(given.value("--runtime-dir"), given.value("--config"))
    found = asyncio.run(findings(where))
    if given.flag("--json"):
        print(json.dumps(list(map(asdict, found)), indent=2, ensure_ascii=False))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(text(found, colour=colour), end="")
    return 1 if any(finding.state is State.BAD for finding in found) else 0
