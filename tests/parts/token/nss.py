"""A database of NSS's softokn, the token inside Firefox: keys "ssh" (P-256) and "mail" (RSA-2048).

The module learns where its database is from a string that C_Initialize takes.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.token.provider import Provider, find_module

PIN = "123456"
TOKEN = "NSS Certificate DB"


@contextmanager
def database() -> Iterator[Provider]:
    """Make a database with a PIN, and two keys with certificates."""
    with tempfile.TemporaryDirectory(prefix="nss-") as name:
        folder = Path(name)
        (folder / "pin").write_text(PIN + "\n")
        (folder / "noise").write_bytes(os.urandom(64))
        _certutil(folder, "-N")
        _certutil(folder, *_certificate("ssh"), "-k", "ec", "-q", "nistp256")
        _certutil(folder, *_certificate("mail"), "-k", "rsa", "-g", "2048")
        parameters = f"configdir='sql:{name}' certPrefix='' keyPrefix='' secmod='secmod.db'"
        yield Provider(find_module("libsoftokn3.so"), PIN, parameters=parameters)


def add_key(provider: Provider, name: str) -> None:
    """Make a further P-256 key with a certificate, while others use the database."""
    folder = Path(provider.parameters.split("sql:")[1].split("'")[0])
    _certutil(folder, *_certificate(name), "-k", "ec", "-q", "nistp256")


def _certificate(name: str) -> list[str]:
    return ["-S", "-x", "-n", name, "-s", f"CN={name}", "-t", "u,u,u", "-z", "noise"]


def _certutil(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["certutil", "-d", "sql:.", "-f", "pin", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
