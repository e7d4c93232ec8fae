"""50 MB in 64 MB: every verb, each in a process of its own, and no message on the disk."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.mail.people import ca_file, person

LIMIT_KIB = 64 * 1024
SIZE = 37 * 1024 * 1024  # 50 MB as base64
HEAD = (
    b"From: alice@example.org\nTo: alice@example.org\nSubject: big\nMIME-Version: 1.0\n"
    b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("large")
    person("rsa").write(path, "alice")
    ca_file(path)
    (path / "plain").write_bytes(HEAD + base64.encodebytes(os.urandom(1024 * 1024) * (SIZE >> 20)))
    yield path
    for file in path.iterdir():
        file.unlink()


def run(folder: Path, source: str, target: str, *arguments: str) -> None:
    keys = f"{folder}/alice.key,{folder}/alice.crt"
    peak = folder / "peak"
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(folder / "data"),
        "HSMAGENT_TEST_PEAK": str(peak),
        "PYTHONPATH": str(root),
    }
    command = [
        sys.executable,
        str(root / "tests/parts/mail/run.py"),
        "smime",
        keys,
        "smime",
        *arguments,
    ]
    with (folder / source).open("rb") as stdin, (folder / target).open("wb") as stdout:
        subprocess.run(command, stdin=stdin, stdout=stdout, env=environment, check=True)
    assert int(peak.read_text()) < LIMIT_KIB


def test_50_mb_in_64_mb(folder: Path) -> None:
    ca = ("--ca", f"{folder}/ca.pem")
    to = ("--recipient", f"{folder}/alice.crt")
    run(folder, "plain", "detached", "sign")
    run(folder, "detached", "report", "verify", *ca)
    run(folder, "plain", "opaque", "sign", "--opaque")
    run(folder, "opaque", "report", "verify", *ca)
    run(folder, "plain", "cbc", "encrypt", *to)
    run(folder, "cbc", "decrypted", "decrypt")
    assert (folder / "decrypted").read_bytes() == (folder / "plain").read_bytes()
    run(folder, "plain", "gcm", "encrypt", "--cipher", "gcm", "--sign", *to)
    run(folder, "gcm", "decrypted", "decrypt", "--all", *ca)
    assert (folder / "decrypted").read_bytes() == (folder / "plain").read_bytes()
