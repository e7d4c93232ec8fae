"""Holds the table of docs/architecture.md: which part may import what.

The parts are the files and folders of hsmagent/. They stand here lowest first; a part may import
those named in its row, itself, and the standard library.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hsmagent"

BASE = "errors frame hardening limit model uri"
ALL = (
    f"{BASE} toml client config control discovery show usage terminal systemd server bus who ssh"
    " mail token prompt desktop policy unlock gate activity journal naming operations providers"
    " configured presence upstream commands"
)

# part: (parts of ours that it may import, libraries that it may import)
LAYERS = {
    # what everyone knows
    "errors": ("", ""),
    "frame": ("errors", ""),
    "model": ("", ""),
    "uri": ("errors model", ""),
    "toml": ("errors model", ""),
    "limit": ("model", ""),
    "hardening": ("", ""),
    # the quick commands: nothing that is slow to import
    "client": ("errors frame", ""),
    "terminal": ("errors frame client", ""),
    "show": ("", ""),
    "usage": ("", ""),
    # the parts, which do not know each other
    "bus": (BASE, "dbus_fast dbus_next"),
    "who": (BASE, "paramiko"),
    "ssh": (BASE, "cryptography"),
    "mail": (BASE, "asn1crypto cryptography pyhanko_certvalidator"),
    "token": (BASE, "cryptography pkcs11"),
    "prompt": (f"{BASE} bus", "cryptography keyring"),
    "desktop": (f"{BASE} bus", ""),
    # the door
    "config": (f"{BASE} toml mail.settings", ""),
    "policy": (f"{BASE} config prompt.base prompt.words", ""),
    "journal": ("", ""),
    "activity": (f"{BASE} journal", ""),
    "unlock": (f"{BASE} token.failures prompt.base prompt.words", ""),
    "gate": (f"{BASE} policy unlock activity token.session prompt.base prompt.words", ""),
    # the house around it
    "systemd": (BASE, ""),
    "upstream": (BASE, ""),
    "server": (f"{BASE} systemd", ""),
    "discovery": ("", ""),
    "control": (f"{BASE} client", ""),
    "naming": (f"{BASE} config ssh.keys", ""),
    "operations": (ALL, "cryptography"),
    "providers": (f"{BASE} token.tokens", ""),
    "configured": (ALL, ""),
    "presence": (ALL, ""),
    "doctor": (ALL, ""),
    "commands": (f"{ALL} daemon private doctor", "cryptography"),
    "cli": (f"{ALL}", ""),
    "daemon": (f"{ALL}", ""),
    "private": (f"{ALL}", ""),
    "__main__": ("cli", ""),
    "__init__": ("", ""),
}

# A library whose faults or weight we keep in one place, and that place.
KEPT_BY = {
    "dbus_fast": "bus",
    "dbus_next": "bus",
    "keyring": "prompt.pin_store",
    "paramiko": "who.destination",
    "pkcs11": "token.library",
}


@dataclass(frozen=True, slots=True)
class Import:
    """`where` ("ssh.agent") imports `what` ("os.path", "hsmagent.model"), at `line` of its file."""

    where: str
    what: str
    line: int

    @property
    def part(self) -> str:
        return self.where.split(".", 1)[0]

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
    for path in sorted(PACKAGE.rglob("*.py")):
        where = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found += imports_of(path.read_text(), where.removesuffix(".__init__"))
    return found


EVERY_IMPORT = every_import()


def within(name: str, allowed: str) -> bool:
    """Whether `name` ("prompt.base.Text") is, or lies in, one of the allowed ("prompt.base")."""
    return any(f"{name}.".startswith(f"{each}.") for each in allowed.split())


def test_every_part_has_its_row() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts <= set(LAYERS), "say in LAYERS (and docs/architecture.md) what it may import"


@pytest.mark.parametrize("part", sorted({each.part for each in EVERY_IMPORT}))
def test_a_part_imports_only_what_its_row_allows(part: str) -> None:
    ours, libraries = LAYERS[part]
    wrong = [
        str(each)
        for each in EVERY_IMPORT
        if each.part == part
        and (
            (each.ours is not None and not within(each.ours, f"{ours} {part}"))
            or (each.library is not None and each.library not in libraries.split())
        )
    ]
    assert wrong == []


@pytest.mark.parametrize(("library", "place"), KEPT_BY.items())
def test_a_library_is_imported_in_one_place(library: str, place: str) -> None:
    wrong = [
        str(each)
        for each in EVERY_IMPORT
        if each.library == library and not within(each.where, place)
    ]
    assert wrong == []


def test_the_ssh_side_is_sans_io() -> None:
    io = {"asyncio", "socket", "_socket", "selectors", "subprocess", "threading"}
    wrong = [
        str(each)
        for each in EVERY_IMPORT
        if each.part == "ssh" and each.what.partition(".")[0] in io
    ]
    assert wrong == []


def test_the_reader_sees_each_way_to_import() -> None:
    source = "import a.b\ndef f():\n    from hsmagent.ssh import wire\n    import pkcs11 as p\n"
    assert [(each.what, each.ours, each.library) for each in imports_of(source, "x")] == [
        ("a.b", None, "a"),
        ("hsmagent.ssh.wire", "ssh.wire", None),
        ("pkcs11", None, "pkcs11"),
    ]
