"""`make bench`: what it writes can be read, and it measures."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import page, plot
from bench.result import AT_LEAST, Part, Plot, Row, Series

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0), (1.0, 50.0, 2000.0), (5.0, 5.0, 5.0)])
def test_a_plot_shows_every_point_within_itself(values: tuple[float, ...]) -> None:
    points = tuple(zip((1.0, 8.0, 64.0), values, strict=True))
    series = (Series("<ours>", points), Series("theirs & co", points[:2]))
    drawn = ET.fromstring(plot.svg(Plot("file", "Title", "x", "y", series)))
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    dots = drawn.findall(f"{SVG}circle")
    assert len(dots) == 5
    assert all(0 < float(dot.attrib["cx"]) < width for dot in dots)
    assert all(0 < float(dot.attrib["cy"]) < height for dot in dots)
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    assert {"<ours>", "theirs & co", "Title", "x", "y", "1", "8", "64"} <= set(texts)


def test_the_page_says_what_is_missed(tmp_path: Path) -> None:
    good = Row("quick", "1 ms", "other 2 ms", 0.5, 0.6, missed="not told")
    bad = Row("many", "10", "other 5", 2.0, 2.5, AT_LEAST, missed="it is hard")
    unknown = Row("memory", "?", "", float("nan"), 34, unit=" MB")
    series = (Series("ours", ((1.0, 1.0), (2.0, 2.0))),)
    part = Part((good, bad, unknown), (Plot("one", "One", "x", "y", series),), (("raw", "1 µs"),))
    written = page.write(tmp_path, [part], [("Python", "3")], "Measured today.").read_text()
    assert "| quick | 1 ms | other 2 ms | 0.5 | ≤ 0.6 |" in written
    assert "| many | 10 | other 5 | 2 (missed) | ≥ 2.5 |" in written
    assert "| memory | ? |  | not known (missed) | ≤ 34 MB |" in written
    assert "- **many**: it is hard" in written
    assert "not told" not in written
    assert "![One](plots/one.svg)" in written
    assert (tmp_path / "plots/one.svg").read_text() == plot.svg(part.plots[0])


def test_it_measures(tmp_path: Path) -> None:
    """One part of it, quickly: SoftHSM and OpenSSH's agent are real."""
    command = [sys.executable, "-m", "bench", "--quick", "--only", "relay"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "performance.md").read_text()
    assert "| C_SignInit and C_Sign in a loop, P-256 | " in written
    assert "This was a quick try" in written
    assert "| Python | " in written
