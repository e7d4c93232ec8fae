"""Keys and certificates that the mail tests share; made once per process."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from hsmagent.mail import sign
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.spool import Memory, Region, Spool
from hsmagent.mail.store import Store
from hsmagent.mail.trust import Anchors
from hsmagent.mail.verify import Judge
from tests.parts.mail.pki import NOW, Authority, Person, SoftwareKeys, authority
from tests.parts.measured import MEASURED

KINDS = ("rsa", "p256", "p384", "p521", "brainpool", "ed25519")


@cache
def root() -> Authority:
    return authority()


@cache
def person(kind: str, address: str = "alice@example.org", name: str = "Alice Example") -> Person:
    return root().issue(kind, name, mail=(address,))


def region(data: bytes) -> Region:
    return Region.whole(Memory(data))


def judge() -> Judge:
    return Judge(Anchors((Certificate(root().der),)), NOW)


def signed(message: bytes, who: Person, **options: Any) -> bytes:
    out = Spool()
    sign.message(region(message), out, SoftwareKeys([who]), sign.Options(now=NOW, **options))
    return out.read_at(0, out.size)


def encrypted_by_openssl(content: bytes, who: Person, folder: Path, command: str = "cms") -> bytes:
    """Return what `openssl cms` (or smime) makes of a content for somebody: fields and body."""
    certificate, _ = who.write(folder, "to")
    encrypt = ["openssl", command, "-encrypt", "-aes256", certificate]
    return subprocess.run(encrypt, input=content, capture_output=True, check=True).stdout


def ca_file(folder: Path) -> str:
    """Write the root where OpenSSL can read it."""
    path = folder / "ca.pem"
    path.write_bytes(root().pem)
    return str(path)


def script(folder: Path, name: str, face: str, *kinds: str) -> str:
    """Write a program `name` that is this face over the software keys of these kinds."""
    pairs = []
    for kind in kinds:
        certificate, key = person(kind).write(folder, kind)
        pairs.append(f"{key},{certificate}")
    checkout = Path(__file__).parents[3]
    path = folder / name
    path.write_text(
        f"#!/bin/sh\nPYTHONPATH={checkout} exec {sys.executable} "
        f"{checkout}/tests/parts/mail/run.py {face} '{';'.join(pairs)}' \"$@\"\n"
    )
    path.chmod(0o755)
    return str(path)


def home(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which the folder is the home, and our root is trusted."""
    store = Store(folder / "data/hsmagent")
    store.add(Certificate(root().der), root=True)
    return {
        **MEASURED,
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        **more,
    }
