"""`hsmagent doctor`: what is wrong with the set-up, and the remedy."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict

from hsmagent.doctor.finding import State, surroundings
from hsmagent.doctor.report import findings, text


def run(arguments: list[str]) -> int:
    """Look, and print what was found. Return 1 if something does not work."""
    options = _parser().parse_args(arguments)
    found = asyncio.run(findings(surroundings(options.runtime_dir, options.config)))
    if options.json:
        print(json.dumps(list(map(asdict, found)), indent=2, ensure_ascii=False))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(text(found, colour=colour), end="")
    return 1 if any(finding.state is State.BAD for finding in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hsmagent doctor", description="Find what is wrong with the set-up; say the remedy."
    )
    parser.add_argument("--json", action="store_true", help="for a program")
    parser.add_argument("--config", default="", metavar="F", help="configuration file")
    parser.add_argument("--runtime-dir", default="", metavar="D", help="folder of the sockets")
    return parser
