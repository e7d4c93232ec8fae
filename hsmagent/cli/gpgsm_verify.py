"""`hsmagent-gpgsm --verify`, and what every command of it needs: status lines, and what comes in.

GnuPG's doc/DETAILS says what each status line means.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from hsmagent.cli.gpgsm_args import Arguments
from hsmagent.errors import UsageError
from hsmagent.mail.armour import dearmoured
from hsmagent.mail.report import Signature
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.mail.stdio import read, warn
from hsmagent.model import KeyType

PROGRAM = "hsmagent-gpgsm"

_NO_PUBLIC_KEY, _UNSUPPORTED = 9, 4  # the reasons in ERRSIG
# Numbers of the OpenPGP registry, which gpgsm's status lines use too.
HASH = {"sha224": 11, "sha256": 8, "sha384": 9, "sha512": 10}
PUBLIC_KEY: dict[str, int] = {KeyType.RSA: 1, KeyType.EC: 19, KeyType.ED25519: 22}


class Status:
    """Status lines for programs. Each must begin at the start of a line, or git does not see it."""

    def __init__(self, descriptor: str) -> None:
        if descriptor and not descriptor.isdecimal():
            raise UsageError("--status-fd takes a number")
        self._fd = int(descriptor) if descriptor else -1

    def say(self, *words: object) -> None:
        """Write one line. Only the last word may hold blanks."""
        if self._fd < 0:
            return
        (sys.stdout if self._fd == 1 else sys.stderr).flush()
        os.write(self._fd, f"[GNUPG:] {' '.join(map(str, words))}\n".encode())


def read_given(files: Sequence[str], *, sealed: bool = False) -> Spool:
    """Read what is to be worked on: the one file that is named, or stdin."""
    if len(files) > 1:
        raise UsageError(f"{PROGRAM} takes one file")
    return read("".join(files), sealed=sealed)


def verify(arguments: Arguments, status: Status) -> int:
    """Check a signature, detached when there is a second file or -, else with its content."""
    if len(arguments.files) > 2:  # noqa: PLR2004 - the signature, and perhaps the data
        raise UsageError("--verify takes the file with the signature, and - or the signed file")
    with ExitStack() as files:
        cms = dearmoured(files.enter_context(read_given(arguments.files[:1])))
        data = None
        if beside := arguments.files[1:]:
            data = files.enter_context(read_given(beside))
        status.say("NEWSIG")
        found = _check(cms, data, arguments)
    # One verdict for all signatures, the worst: a second GOODSIG would hide a bad one.
    worst = min(found, key=lambda signature: (signature.intact, signature.trusted))
    warn(PROGRAM, [worst.text()])
    _say(worst, status)
    return 0 if worst.ok else 1


def _check(cms: Source, data: Spool | None, arguments: Arguments) -> list[Signature]:
    from hsmagent.cli.trust import judge
    from hsmagent.mail import verify as judging
    from hsmagent.mail.cms import signers
    from hsmagent.mail.cms.signers import Covered

    if data is None:
        found = signers.read(cms)
        if found.content is None:
            raise UsageError("the signature is detached: name the signed file too, or - for stdin")
        checked = judging.signatures(found, Covered(found.content.chunks), judge(), "the data")
        if arguments.get("--output") and all(signature.ok for signature in checked):
            Path(arguments.get("--output")).write_bytes(b"".join(found.content.chunks()))
        return checked
    return judging.detached(cms, Covered(Region.whole(data).chunks), judge(), "the data")


def _say(worst: Signature, status: Status) -> None:
    name = worst.who.name if worst.who else ""
    mark = worst.who.fingerprint_sha1 if worst.who else "0" * 40
    if worst.who is None or not worst.checked:  # it could not be checked: git shows E
        reason = _NO_PUBLIC_KEY if worst.who is None else _UNSUPPORTED
        status.say("ERRSIG", mark, "0", "0", "00", "0", reason)
        return
    status.say("GOODSIG" if worst.intact else "BADSIG", mark, name)
    if worst.intact:
        signed = datetime.fromisoformat(worst.signed_at) if worst.signed_at else None
        day, moment = (f"{signed:%Y-%m-%d}", f"{signed:%Y%m%dT%H%M%S}") if signed else ("0", "0")
        until = f"{datetime.fromisoformat(worst.who.not_after):%Y%m%dT%H%M%S}"
        numbers = PUBLIC_KEY.get(worst.who.key_type, 0), HASH.get(worst.digest, 0)
        # The fingerprint comes again in the place of OpenPGP's primary key: git shows it as %GP.
        status.say("VALIDSIG", mark, day, moment, until, "0", "0", *numbers, "00", mark)
        status.say("TRUST_FULLY" if worst.trusted else "TRUST_UNDEFINED", "0", "shell")
