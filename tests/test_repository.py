"""What holds for the repository as a whole."""

import re
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import hsmagent

ROOT = Path(__file__).parent.parent
PINS = sorted((ROOT / "requirements").glob("*.txt"))


def tracked() -> list[Path]:
    """Return the text files that git does not ignore; wherever the repository itself may be."""
    listed = subprocess.run(
        ["git", "grep", "--no-index", "--exclude-standard", "-Il", ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def project() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, Any] = settings["project"]
    return found


def pins(path: Path) -> dict[str, str]:
    """Read a compiled requirements file: name, normalised → version."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", path.read_text(), re.MULTILINE))


def normal(requirement: str) -> str:
    """Return a requirement's name as indexes spell it (PEP 503)."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_the_versions_agree() -> None:
    assert "version" in project()["dynamic"]
    assert metadata.version("hsmagent") == hsmagent.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in headings[1:])


def test_no_file_names_a_package_index() -> None:
    # Where packages come from is the business of the machine that installs them.
    hosts = re.compile(
        r"(pypi|pythonhosted|deb\.debian|debian\.org/debian|npmjs)\.?", re.IGNORECASE
    )
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked()
        if path != Path(__file__)
        for line in path.read_text(errors="replace").splitlines()
        if hosts.search(line) and "://" in line
    ]
    assert wrong == []


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_every_pin_is_exact_and_hashed(path: Path) -> None:
    text = path.read_text()
    entries = re.split(r"\n(?=\S)", "\n".join(re.findall(r"^[^#].*", text, re.MULTILINE)))
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry
    assert "://" not in text


@pytest.mark.parametrize(
    "path", [path for path in PINS if path.name != "docs.txt"], ids=lambda path: path.name
)
def test_the_pins_hold_what_the_project_asks_for(path: Path) -> None:
    asked = {normal(each) for each in project()["dependencies"] if ">= '3.15'" not in each}
    assert asked <= set(pins(path))


def test_the_pins_agree_with_each_other() -> None:
    runtime, dev = (pins(ROOT / "requirements" / name) for name in ("runtime.txt", "dev.txt"))
    build = pins(ROOT / "requirements/build.txt")
    assert runtime.items() <= build.items() <= dev.items()
    # The vectors are made for one release.
    assert dev["cryptography-vectors"] == dev["cryptography"]


def test_the_debian_packages_are_listed_once() -> None:
    lines = (ROOT / "packages.debian").read_text().splitlines()
    packages = [line for line in lines if line and line[0] not in "#["]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+( 1[0-9])?", package) for package in packages)
    assert len(packages) == len(set(packages))


def test_every_goal_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    goals = re.findall(r"^\.PHONY: (.+)", makefile, re.MULTILINE)
    assert "test" in goals
    for goal in goals:
        assert re.search(rf"^{goal}:.*## \S", makefile, re.MULTILINE), goal


def test_programs_are_executable() -> None:
    programs = [path for path in tracked() if path.read_bytes().startswith(b"#!")]
    assert programs
    assert [path.name for path in programs if not path.stat().st_mode & 0o111] == []


def test_no_module_and_no_function_is_too_long() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build-aux" / "count-code"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_count_sees_code_and_what_is_too_long(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    long = "".join(f"    a{number} = 1\n\n" for number in range(40))
    text = f'"""Doc\nstring."""\n\n# Comment.\nA = """two\nlines"""\nasync def f():\n{long}'
    (package / "one.py").write_text(text)
    (package / "two.py").write_text("\n" * 401)
    done = subprocess.run(
        [sys.executable, ROOT / "build-aux" / "count-code", package],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            "43 lines of code in 2 modules",
            "package/one.py: f has 80 lines; 40 are the limit",
            "package/two.py has 401 lines; 400 are the limit",
        ],
    )


def test_the_tests_heed_the_signals_that_their_caller_ignores() -> None:
    """As what a script starts in its background ignores SIGINT."""
    script = "trap '' INT HUP; exec build-aux/unprivileged grep SigIgn /proc/self/status"
    ran = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    ignored = int(ran.stdout.split()[1], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGHUP))
