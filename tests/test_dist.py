"""What is released: the same bytes each time, with all that belongs to it."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import hsmagent
from tests.test_repository import tracked

ROOT = Path(__file__).parent.parent
NAME = f"hsmagent-{hsmagent.__version__}"
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what git tracks, as a clone has it."""
    folder = tmp_path_factory.mktemp("source") / "hsmagent"
    for path in tracked():
        copy(path, folder / path.relative_to(ROOT))
    for path in (ROOT / "docs/pictures").iterdir():
        copy(path, folder / path.relative_to(ROOT))
    return folder


def copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)


def build(source: Path, folder: Path, umask: int) -> Path:
    subprocess.run(
        [source / "build-aux/dist", sys.executable, folder],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        umask=umask,
        check=True,
        timeout=120,
    )
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("built"), 0o022)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_the_same_each_time(built: Path, source: Path, tmp_path: Path) -> None:
    """In another folder, at another time, by somebody with another umask; from the sdist too."""
    other = tmp_path / "elsewhere"
    shutil.copytree(source, other, copy_function=shutil.copyfile)
    for path in other.rglob("*"):
        path.chmod(0o700 if path.is_dir() or path.read_bytes().startswith(b"#!") else 0o600)
    assert contents(build(other, tmp_path / "again", 0o077)) == contents(built)
    unpack = ["tar", "--extract", "--gzip", f"--file={built}/{NAME}.tar.gz", "--directory"]
    subprocess.run([*unpack, tmp_path], check=True, timeout=60)
    again = build(tmp_path / NAME, tmp_path / "from-sdist", 0o022)
    wheel = f"{NAME}-py3-none-any.whl"
    assert (again / wheel).read_bytes() == (built / wheel).read_bytes()


def test_the_source_distribution_holds_all_that_git_does(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {str(path.relative_to(ROOT)) for path in tracked()} - held == set()


def test_the_wheel_holds_every_package(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        held = set(wheel.namelist())
    kept = {str(path.relative_to(ROOT)) for path in tracked()}
    assert {path for path in kept if path.startswith("hsmagent/")} - held == set()


def test_the_wheel_holds_what_setup_places(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        share = f"{NAME}.data/data/share/"
        held = {name.removeprefix(share) for name in wheel.namelist() if name.startswith(share)}
    kept = [str(path.relative_to(ROOT)) for path in tracked()]
    placed = [path for path in kept if path.startswith(("systemd/", "contrib/"))]
    # `man` and pipx look for manual pages in share/man.
    manual = {path.removeprefix("contrib/") for path in placed if path.startswith("contrib/man/")}
    rest = {f"hsmagent/{path}" for path in placed if not path.startswith("contrib/man/")}
    assert held == manual | rest


def test_an_index_would_take_it(built: Path) -> None:
    wheel = built / f"{NAME}-py3-none-any.whl"
    both = (wheel, built / f"{NAME}.tar.gz")
    subprocess.run([TOOLS / "twine", "check", "--strict", *both], check=True, timeout=60)
    subprocess.run([TOOLS / "check-wheel-contents", wheel], check=True, timeout=60)
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
    text = metadata.partition("\n\n")[2]
    assert text.startswith("# hsmagent")
    # Nothing stands beside it there.
    assert re.findall(r"\]\((?!\w+:|#)[^)]*\)|<img src=\"(?!\w+:)", text) == []


FILES = ("SECURITY.md", "debian/control", "debian/copyright", "systemd/hsmagent.service")


def with_addresses(source: Path, folder: Path, places: str, reports: str) -> dict[str, str]:
    """Set both in a copy of the project; return what its files say then."""
    if not folder.exists():
        shutil.copytree(source, folder)
    settings = folder / "pyproject.toml"
    text = settings.read_text()
    for name, value in (("places", places), ("reports", reports)):
        text, count = re.subn(rf'^{name} = ".*?"', f'{name} = "{value}"', text, flags=re.MULTILINE)
        assert count == 1
    settings.write_text(text)
    subprocess.run([ROOT / "build-aux/addresses", folder], check=True, timeout=60)
    return {name: (folder / name).read_text() for name in FILES}


def test_an_address_that_is_set_in_one_place_is_named_everywhere(
    source: Path, tmp_path: Path
) -> None:
    now = {name: (ROOT / name).read_text() for name in FILES}
    here, there = "https://example.org/hsmagent/blob/main/", "security@example.org"
    named = with_addresses(source, tmp_path / "copy", here, there)
    assert f"\nReport to {there}.\n" in named["SECURITY.md"]
    assert "no address" not in named["SECURITY.md"]
    assert f"\nHomepage: {here}\n" in named["debian/control"]
    assert f"\nSource: {here}\n" in named["debian/copyright"]
    assert f"Documentation={here}docs/desktop.md " in named["systemd/hsmagent.service"]
    built = build(tmp_path / "copy", tmp_path / "built", 0o022)
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        metadata = archive.read(f"{NAME}.dist-info/METADATA").decode()
    assert f"Project-URL: Security, {here}SECURITY.md" in metadata
    assert f"]({here}SECURITY.md)" in metadata
    # Twice is once, and without an address every file is what it is without.
    assert with_addresses(source, tmp_path / "copy", here, there) == named
    bare = with_addresses(source, tmp_path / "copy", "", "")
    assert "no address for reports yet" in bare["SECURITY.md"]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hsmagent"]
    assert with_addresses(source, tmp_path / "copy", **settings) == now
