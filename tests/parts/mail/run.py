"""Runs the mail commands in a process of their own, over software keys from files.

`python mailrun.py FACE KEY,CERT[;KEY,CERT…] ARGUMENT…`: FACE names a module of hsmagent.cli with
`main(argv, keys)`; "smime" stands for `hsmagent` itself.
Written to HSMAGENT_TEST_PEAK, if set: the peak of resident memory, in KiB.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsmagent.cli import mail_programs
from hsmagent.cli import main as hsmagent
from hsmagent.config.mail import Settings, When
from tests.parts.mail.pki import Person, SoftwareKeys


def keys(files: str) -> SoftwareKeys:
    """Load pairs of key and certificate."""
    people = []
    for pair in filter(None, files.split(";")):
        key, certificate = (Path(name).read_bytes() for name in pair.split(","))
        people.append(
            Person(load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate))
        )
    return SoftwareKeys(people)


def main() -> int:
    """Run one face."""
    face, files, *arguments = sys.argv[1:]
    if face == "smime":
        mail_programs.over_keys = lambda work: work(lambda: keys(files))
        return measured(hsmagent.run(arguments))
    run = import_module(f"hsmagent.cli.{face}").main
    if face == "sendmail":
        real = tuple(os.environ.get("HSMAGENT_TEST_SENDMAIL", "/bin/false").split())
        sign, encrypt = (
            When(os.environ.get(f"HSMAGENT_TEST_{name}", default))
            for name, default in (("SIGN", When.POSSIBLE), ("ENCRYPT", When.ASKED))
        )
        status: int = run(arguments, lambda: keys(files), Settings(real, sign, encrypt))
    else:
        status = run(arguments, lambda: keys(files))
    return measured(status)


def measured(status: int) -> int:
    """Tell the peak of our memory, and return the status."""
    if peak := os.environ.get("HSMAGENT_TEST_PEAK"):
        lines = Path("/proc/self/status").read_text().splitlines()
        Path(peak).write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    return status


if __name__ == "__main__":
    sys.exit(main())
