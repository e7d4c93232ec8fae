"""Holds the table of docs/architecture.md: which part may import what.

The parts are the folders of hsmagent/, and *base*: the modules in its root, which everybody may
import. A part may import itself, the standard library, and what its row names. A grant that nobody
uses is wrong too, so that the page tells what is, and not what once was.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hsmagent"
PAGE = ROOT / "docs" / "architecture.md"

EVERYTHING = "everything"
MODULES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})

# A library whose faults or weight we keep in one place, and that place.
KEPT_BY = {
    "dbus_fast": "bus",
    "dbus_next": "bus",
    "keyring": "prompt.pin_store",
    "paramiko": "who.destination",
    "pkcs11": "worker.library",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one part may import: parts or modules of ours ("prompt.words"), and libraries."""

    part: str
    ours: frozenset[str]
    libraries: frozenset[str]
    all_but: frozenset[str] | None  # everything of ours but these; None: only `ours`

    def allows(self, ours: str, part: str) -> bool:
        """Whether the row lets its part import `ours` ("prompt.words.Text"), which is of `part`."""
        if part == self.part:
            return True
        if self.all_but is not None:
            return part not in self.all_but
        return any(within(ours, grant, part) for grant in self.ours)


@dataclass(frozen=True, slots=True)
class Import:
    """`where` ("ssh.agent") imports `what` ("os.path", "hsmagent.model"), at `line` of its file."""

    where: str
    what: str
    line: int

    @property
    def part(self) -> str:
        return part_of(self.where)

    @property
    def ours(self) -> str | None:
        """What of hsmagent it imports ("prompt.base"), if it does. Its version is everyone's."""
        first, _, rest = self.what.partition(".")
        return rest if first == "hsmagent" and rest not in ("", "__version__") else None

    @property
    def library(self) -> str | None:
        first = self.what.partition(".")[0]
        return None if first == "hsmagent" or first in sys.stdlib_module_names else first

    def __str__(self) -> str:
        return f"{self.where}:{self.line} imports {self.what}"


def part_of(name: str) -> str:
    """Return the part that `name` ("ssh.agent", "frame.wipe") belongs to."""
    first = name.partition(".")[0]
    return first if (PACKAGE / first).is_dir() or first in NOT_BASE else "base"


def within(name: str, grant: str, part: str) -> bool:
    """Whether `name` ("prompt.base.Text") is, or lies in, what is granted ("prompt.base")."""
    return grant == part or f"{name}.".startswith(f"{grant}.")


def table() -> dict[str, Row]:
    """Read the page: part → its row. Cells: part, what it holds, ours, libraries."""
    section = PAGE.read_text().split("\n## Layers\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return {row.part: row for row in map(read_row, lines)}


def read_row(line: str) -> Row:
    part, _, ours, libraries = (cell.strip() for cell in line.strip("|").split("|"))
    everything, _, but = ours.partition(" but ")
    named = frozenset(re.findall(r"`([\w.]+)`", ours))
    return Row(
        part.strip("`/"),
        named,
        frozenset(re.findall(r"`(\w+)`", libraries)),
        frozenset(re.findall(r"`([\w.]+)`", but)) if everything == EVERYTHING else None,
    )


def imports_of(source: str, where: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(where, name.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}:{node.lineno} imports relatively"
            for name in node.names:
                yield Import(where, f"{node.module}.{name.name}", node.lineno)


def every_import() -> list[Import]:
    found: list[Import] = []
    for path in MODULES:
        where = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found += imports_of(path.read_text(), where.removesuffix(".__init__"))
    return found


EVERY_IMPORT = every_import()
TABLE = table()
NOT_BASE = {"__main__"} | {part for part in TABLE if (PACKAGE / f"{part}.py").exists()}
PARTS = sorted(
    {part_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py")) for path in MODULES}
)


def of(part: str) -> list[Import]:
    return [each for each in EVERY_IMPORT if each.part == part]


def used(grant: str, part: str) -> bool:
    return any(
        within(each.ours, grant, part_of(each.ours)) for each in of(part) if each.ours is not None
    )


def test_every_part_has_its_row_and_every_row_its_part() -> None:
    assert set(TABLE) == set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_what_its_row_allows(part: str) -> None:
    row = TABLE[part]
    assert [
        str(each)
        for each in of(part)
        if (each.ours is not None and not row.allows(each.ours, part_of(each.ours)))
        or (each.library is not None and each.library not in row.libraries)
    ] == []


@pytest.mark.parametrize("part", PARTS)
def test_a_row_grants_only_what_is_used(part: str) -> None:
    row = TABLE[part]
    libraries = {each.library for each in of(part)}
    if row.all_but is None:
        assert [grant for grant in sorted(row.ours) if not used(grant, part)] == []
    assert [library for library in sorted(row.libraries) if library not in libraries] == []


@pytest.mark.parametrize(("library", "place"), KEPT_BY.items())
def test_a_library_is_imported_in_one_place(library: str, place: str) -> None:
    wrong = [
        str(each)
        for each in EVERY_IMPORT
        if each.library == library and not within(each.where, place, each.part)
    ]
    assert wrong == []


def test_the_ssh_side_is_sans_io() -> None:
    io = {"asyncio", "socket", "_socket", "selectors", "subprocess", "threading"}
    assert [str(each) for each in of("ssh") if each.what.partition(".")[0] in io] == []


def test_the_reader_sees_each_way_to_import() -> None:
    source = "import a.b\ndef f():\n    from hsmagent.ssh import wire\n    import pkcs11 as p\n"
    assert [(each.what, each.ours, each.library) for each in imports_of(source, "x")] == [
        ("a.b", None, "a"),
        ("hsmagent.ssh.wire", "ssh.wire", None),
        ("pkcs11", None, "pkcs11"),
    ]


def test_a_row_is_read_as_it_is_written() -> None:
    row = read_row("| `door/` | the door | `base`, `prompt.words` | `cryptography` |")
    assert row == Row(
        "door", frozenset({"base", "prompt.words"}), frozenset({"cryptography"}), None
    )
    assert row.allows("prompt.words.Text", "prompt")
    assert row.allows("door.gate", "door")
    assert row.allows("frame.wipe", "base")
    assert not row.allows("prompt.wordsmith", "prompt")
    row = read_row("| `daemon/` | the process | everything but `cli` | none |")
    assert row.allows("mail.sign", "mail")
    assert not row.allows("cli.main", "cli")


def test_the_root_stays_small() -> None:
    """What everybody may import is little: eleven modules, `__main__` with them."""
    assert len([module for module in MODULES if module.parent == PACKAGE]) <= 11
