"""docs/performance.md: what was measured, on what, and what is missed."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.plot import svg
from bench.result import Part, Row, shown

_HEAD = """\
# Performance

`make bench` measures all of this and writes this page (`QUICK=1` for a try of two minutes). Where
there is another program for the same work, both take turns, a fraction of a second or one run at a
time, and the ratio is the median of the pairs: it says more than a time does. Every signature of
ours is checked against its public key before it leaves, which the others do not do.
"""
_LIMITS = """\
What no agent in front of this token can fall below; and what the barest one in two Python processes
takes, which only passes a request on, hashes and signs: it asks nobody and knows no policy. It
checks nothing at first, and then each signature, as ours does. A list it answers with a constant.
"""
_FOLDER = "plots"


def write(folder: Path, parts: Sequence[Part], told: Iterable[tuple[str, str]], note: str) -> Path:
    """Write the page and its plots below `folder` (docs/). Return the page."""
    plots = [plot for part in parts for plot in part.plots]
    (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / _FOLDER / f"{plot.file}.svg").write_text(svg(plot))
    lines = [line for part in parts for line in part.lines]
    rows = [row for part in parts for row in part.rows]
    pictures = (f"![{plot.title}]({_FOLDER}/{plot.file}.svg)\n" for plot in plots)
    text = "\n".join(
        (
            _HEAD,
            note,
            "\n## Against the goals\n",
            *_table(("", "hsmagent", "beside it", "figure", "goal"), map(_cells, rows)),
            *_missed(rows),
            "\n## Limits\n",
            _LIMITS,
            *_table(("", ""), lines),
            "\n## How it grows\n",
            "Each point is the p50 of the round that was disturbed least.\n",
            *pictures,
            "## Machine and versions\n",
            *_table(("", ""), told),
        )
    )
    page = folder / "performance.md"
    page.write_text(text + "\n")
    return page


def _missed(rows: Iterable[Row]) -> list[str]:
    """Say of each row that misses its goal what is known of that."""
    told = [f"- **{row.name}**: {row.missed}" for row in rows if row.missed and not row.is_good]
    return ["\n### What is missed, and why\n", *told] if told else []


def _cells(row: Row) -> tuple[str, ...]:
    figure = "not known" if math.isnan(row.figure) else shown(row.figure) + row.unit
    mark = "" if row.is_good else " (missed)"
    return row.name, row.ours, row.theirs, figure + mark, f"{row.better} {row.goal:g}{row.unit}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    every = (head, ("---",) * len(head), *rows)
    return [f"| {' | '.join(cells)} |" for cells in every]
