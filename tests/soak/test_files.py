"""A gigabyte through each verb of `hsmagent file`, in 64 MB of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.mail.people import ca_file, home, script

SIZE = int(os.environ.get("SOAK_FILE_MB", "1024"))
MOST = 64 * 1024  # KiB


@pytest.mark.timeout(3600)
def test_a_gigabyte_in_64_mb(tmp_path: Path) -> None:
    ca_file(tmp_path)
    program = script(tmp_path, "hsmagent", "smime", "rsa")
    with (tmp_path / "data.bin").open("wb") as file:
        for _ in range(SIZE):
            file.write(os.urandom(1 << 20))
    peak = tmp_path / "peak"
    for command, made in (
        ("encrypt data.bin --cipher gcm --recipient rsa.crt -o made", "made"),
        ("decrypt made -o back.bin", "back.bin"),
        ("encrypt --cipher cbc --recipient rsa.crt < data.bin > made", "made"),
        ("decrypt < made > back.bin", "back.bin"),
        ("sign data.bin -o p7s", ""),
        ("verify p7s data.bin --ca ca.pem", ""),
    ):
        if made:
            (tmp_path / made).unlink(missing_ok=True)
        subprocess.run(
            ["/bin/sh", "-c", f'set -e; "$0" file {command}', program],
            cwd=tmp_path,
            env=home(tmp_path, HSMAGENT_TEST_PEAK=str(peak)),
            stdout=sys.stderr,
            check=True,
        )
        assert int(peak.read_text()) < MOST, command
        if made == "back.bin":
            subprocess.run(["cmp", "data.bin", made], cwd=tmp_path, check=True)
    for each in tmp_path.iterdir():
        if each.is_file():
            each.unlink()
