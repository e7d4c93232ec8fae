"""GnuPG with a home of its own, whose agent takes hsmagent-scd for its scdaemon."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from tests.parts.mail.pki import Authority

CHECKOUT = Path(__file__).parents[3]
SCD = "import sys; from hsmagent.cli.scd import main; sys.exit(main())"
SECONDS = 120


def version() -> tuple[int, ...]:
    """Return the version of GnuPG."""
    said = subprocess.run(["gpgconf", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", said.stdout)
    assert found
    return tuple(map(int, found[0].split(".")))


class Gnupg:
    """A home of GnuPG. environment: of the session, where the daemon's sockets are.

    options: what hsmagent-scd is given.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], authority: Authority, *options: str
    ) -> None:
        self.home = home
        self.environment = {**environment, "GNUPGHOME": str(home)}
        self.environment["PYTHONPATH"] = str(CHECKOUT)
        self.program = home / "hsmagent-scd"
        words = " ".join(f"'{word}'" for word in options)
        self.program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{SCD}' {words} \"$@\"\n")
        self.program.chmod(0o755)
        self.pinentries = home / "pinentries"
        pinentry = home / "pinentry"
        pinentry.write_text(f"#!/bin/sh\necho started >> {self.pinentries}\nexit 1\n")
        pinentry.chmod(0o755)
        (home / "gpgsm.conf").write_text("disable-crl-checks\nno-secmem-warning\n")
        (home / "gpg-agent.conf").write_text(
            f"scdaemon-program {self.program}\npinentry-program {pinentry}\n"
        )
        fingerprint = authority.certificate.fingerprint(hashes.SHA1()).hex(":").upper()
        (home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")

    def try_(self, *command: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a program in this home; never raises for its exit status."""
        return subprocess.run(
            list(map(str, command)),
            input=data,
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )

    def run(self, *command: str | Path, data: bytes = b"") -> bytes:
        """Run a program in this home; return what it prints."""
        done = self.try_(*command, data=data)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def gpgsm(self, *arguments: str | Path, data: bytes = b"") -> bytes:
        return self.run("gpgsm", "--batch", "--yes", *arguments, data=data)

    def scd(self, *lines: str) -> list[str]:
        """Send our lines through the agent; return what is answered."""
        commands = [f"SCD {line}" for line in lines]
        return self.run("gpg-connect-agent", *commands, "/bye").decode().splitlines()

    def learn(self) -> None:
        self.gpgsm("--learn-card")

    @property
    def asked_by_pinentry(self) -> bool:
        """Whether GnuPG has ever started its own pinentry."""
        return self.pinentries.exists()

    def close(self) -> None:
        self.try_("gpgconf", "--kill", "all")


@contextmanager
def gnupg(environment: Mapping[str, str], authority: Authority, *options: str) -> Iterator[Gnupg]:
    """Make a home and end what runs in it. Its path is short, for the sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="gnupg-"))
    made = Gnupg(folder, environment, authority, *options)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def keygrips(listed: Sequence[str]) -> set[str]:
    """Return the keygrips in a list of `--with-keygrip`."""
    return {grip for line in listed for grip in re.findall(r"\b[0-9A-F]{40}\b", line)}
