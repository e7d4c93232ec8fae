"""Measure everything and write docs/performance.md.

usage: python -m bench [--quick] [--only PART]... [--output FOLDER]
"""

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from bench import machine, page
from bench.result import FULL, QUICK, Part, Scale
from bench.runs import ROOT

PARTS = ("agents", "resident", "mail", "card", "relay", "scaling")
_BUSY = 0.7  # programs that wanted a processor before we began


def main() -> int:
    """Measure. Return 1 when a part could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a try of about two minutes")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="FOLDER")
    given = parser.parse_args()
    scale, busy = QUICK if given.quick else FULL, machine.load_average()
    found, failed = [], []
    for name in given.only or PARTS:
        began = time.monotonic()
        try:
            found.append(_measured(name, scale))
        except (OSError, RuntimeError, AssertionError, StopIteration) as error:
            failed.append(name)
            print(f"{name}: not measured: {error}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    written = page.write(given.output, found, machine.described(), _note(scale, busy, failed))
    print(f"written: {written}", file=sys.stderr)
    return 1 if failed else 0


def _measured(name: str, scale: Scale) -> Part:
    part: Part = import_module(f"bench.{name}").measure(scale)
    return part


def _note(scale: Scale, busy: float, failed: list[str]) -> str:
    """Say what there is to keep in mind of this run."""
    told = [f"Measured on {time.strftime('%Y-%m-%d')}."]
    if scale is QUICK:
        told.append("**This was a quick try**: few and short runs.")
    if busy > _BUSY:
        told.append(
            f"**Other work ran beside it** (load average {busy:.1f} before it began): take the "
            "ratios for what they are worth, and the times for nothing."
        )
    if failed:
        told.append(f"Not measured here: {', '.join(failed)}.")
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(main())
