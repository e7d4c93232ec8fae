"""What a reader of README.md and the pages types: the lines of their console blocks."""

import re
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def pages() -> list[str]:
    """Return the names of all pages, from the root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return each fenced block of a page: its language and its text."""
    text = (ROOT / page).read_text()
    return [(kind, dedent(inside)) for _, kind, inside in FENCED.findall(text)]


def commands(page: str) -> list[str]:
    """Return each command of a page's console blocks; what it prints is left out."""
    found: list[str] = []
    for kind, inside in blocks(page):
        if kind == "console":
            lines = inside.replace("\\\n", " ").splitlines()
            found += [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return found
