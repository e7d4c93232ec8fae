"""Run a command with a card in a reader: `python -m tests.parts.token.card [--genuine] COMMAND …`.

The command and its children find the card through their environment. `--genuine` makes it as
slow as a real one. Ends with the command's exit status.
"""

import argparse
import os
import subprocess
import sys

from tests.parts.token.card import furnished, inserted


def main() -> int:
    """Put the card in, run the command, take the card out."""
    parser = argparse.ArgumentParser(prog="python -m tests.parts.token.card")
    parser.add_argument("--genuine", action="store_true", help="as slow as a real card")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    card = furnished()
    if arguments.genuine:
        card.knobs.genuine_speed()
    with inserted(card) as reader:
        environment = os.environ | reader.provider.environment
        return subprocess.run(arguments.command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
