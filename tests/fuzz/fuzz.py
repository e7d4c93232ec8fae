"""Fuzz one target with atheris: `python -m tests.fuzz.fuzz TARGET [libFuzzer's options]`.

Without `-max_total_time=…` it goes on until it finds something. A finding is written to a file
crash-… that the same command reads: `python -m tests.fuzz.fuzz TARGET crash-…`.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hsmagent", "asn1crypto"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run the target named on the command line, from its seeds."""
    name, *options = sys.argv[1:]
    target, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        files = [option for option in options if not option.startswith("-")]
        folder = [] if files else [corpus]
        atheris.Setup([sys.argv[0], "-max_len=4096", "-timeout=20", *options, *folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
