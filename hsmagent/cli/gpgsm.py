"""`hsmagent-gpgsm`: gpgsm's arguments and status lines, as git uses them (gpg.format = x509).

Signing: `--status-fd=2 -bsau KEY`, data on stdin, PEM on stdout. Verifying:
`--status-fd=1 --verify FILE -`, data on stdin.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import canonical, identity, sign, store
from hsmagent.mail.cms import der, oids
from hsmagent.mail.identity import Identity
from hsmagent.mail.keys import Context, MailKeys
from hsmagent.mail.report import Who
from hsmagent.mail.sign import Signed
from hsmagent.mail.spool import Memory, Region, Spool, fill
from hsmagent.mail.stdio import Out, source
from hsmagent.model import KeyType, printable

SIGNATURE_MAX = 1024 * 1024
_LABEL = "SIGNED MESSAGE"
_BEGIN, _END = b"-----BEGIN SIGNED MESSAGE-----", b"-----END SIGNED MESSAGE-----"

# Numbers of the OpenPGP registry, which gpgsm's status lines use too.
_PUBLIC_KEY = {KeyType.RSA: 1, KeyType.EC: 19, KeyType.ED25519: 22}
_HASH = {"sha256": 8, "sha384": 9, "sha512": 10}

_NO_PUBLIC_KEY = 9  # the reason in ERRSIG

_FLAGS = {
    "--armor": "a",
    "--detach-sign": "bs",
    "--detach-sig": "bs",
    "--sign": "s",
    "--verify": "v",
    "--batch": "",
    "--yes": "",
    "--quiet": "",
    "--no-tty": "",
}
_VALUES = {"--status-fd", "--local-user", "--output", "--keyid-format"}


@dataclass(slots=True)
class _Arguments:
    flags: set[str]
    values: dict[str, str]
    files: list[str]


def main(argv: Sequence[str], keys: Callable[[], MailKeys]) -> int:
    """Do what gpgsm would; 0 done, 1 failed or not good."""
    try:
        arguments = _parse(argv)
        status = _Status(arguments.values.get("--status-fd", ""))
        if "v" in arguments.flags:
            return _verify(arguments, status)
        if {"b", "s"} <= arguments.flags:
            return _sign(arguments, status, keys)
        raise UsageError("hsmagent-gpgsm signs (-bsau KEY) and verifies (--verify FILE -) for git")
    except HsmAgentError as error:
        sys.stderr.write(f"hsmagent-gpgsm: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"hsmagent-gpgsm: {error.filename or 'error'}: {error.strerror}\n")
        return 1


class _Status:
    """Status lines for programs; each begins at a line start, or git does not see it."""

    def __init__(self, descriptor: str) -> None:
        if descriptor and not descriptor.isdecimal():
            raise UsageError("--status-fd takes a number")
        self._fd = int(descriptor) if descriptor else -1

    def say(self, *words: object) -> None:
        """Write one line."""
        if self._fd < 0:
            return
        (sys.stdout if self._fd == 1 else sys.stderr).flush()
        os.write(self._fd, f"[GNUPG:] {' '.join(map(str, words))}\n".encode())


def _parse(argv: Sequence[str]) -> _Arguments:
    flags: set[str] = set()
    values: dict[str, str] = {}
    files: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in _VALUES:
            values[name] = value if equals else next(words, "")
        elif word in _FLAGS:
            flags.update(_FLAGS[word])
        elif word.startswith("--") and word != "--":
            raise UsageError(f"hsmagent-gpgsm does not know {printable(word)}")
        elif word.startswith("-") and word not in ("-", "--"):
            letters, u, user = word[1:].partition("u")
            flags.update(letters)
            if u:
                values["--local-user"] = user or next(words, "")
        elif word != "--":
            files.append(word)
    if flags - set("absv"):
        raise UsageError(f"hsmagent-gpgsm does not know -{printable(min(flags - set('absv')))}")
    return _Arguments(flags, values, files)


def _sign(arguments: _Arguments, status: _Status, keys: Callable[[], MailKeys]) -> int:
    wanted = arguments.values.get("--local-user", "")
    if not wanted:
        raise UsageError("say whose key signs: -u KEY (git: user.signingKey or your address)")
    now, held = datetime.now(UTC), keys()
    files = tuple(entry.certificate for entry in store.default().entries())
    who = identity.find(held.keys(), wanted, now, files=files)
    with Spool() as data:
        fill(data, source())
        region = Region.whole(data)
        status.say("BEGIN_SIGNING", "H8")
        made = sign.content_signature(
            region.chunks, held, who, sign.Options(now, files=files), _context(region, wanted)
        )
    out = Out()
    out.write(der.pem(_LABEL, made.before + made.after))
    if not out.finish():
        return 1
    status.say(
        "SIG_CREATED",
        "D",
        *_numbers(who, made),
        "00",
        int(time.time()),
        Who.of(who.certificate).fingerprint_sha1,
    )
    return 0


def _context(data: Region, wanted: str) -> Context:
    """Name a git object by the first line of its message, after the header and an empty line."""
    text = data.source.read_at(0, min(data.size, 16384)).decode("utf-8", "replace")
    subject = text.partition("\n\n")[2].partition("\n")[0]
    return Context("git", wanted, subject)


def _numbers(who: Identity, made: Signed) -> tuple[int, int]:
    return _PUBLIC_KEY[who.key.key_type], _HASH[oids.digest_name(made.scheme)]


# -- verifying -------------------------------------------------------------------------------


def _verify(arguments: _Arguments, status: _Status) -> int:
    from hsmagent.cli.trust import judge
    from hsmagent.mail import verify
    from hsmagent.mail.cms.signers import Covered

    if not 1 <= len(arguments.files) <= 2:  # noqa: PLR2004 - the signature, and perhaps the data
        raise UsageError("--verify takes the file with the signature, and - or the signed file")
    signature = Memory(_dearmoured(Path(arguments.files[0])))
    with Spool() as data:
        _read_data(arguments.files[1:], data)
        content = Covered(Region.whole(data).chunks)
        status.say("NEWSIG")
        found = verify.detached(signature, content, judge(), "the data")
    # One verdict only, over all signatures: a second GOODSIG would hide a bad one.
    worst = min(found, key=lambda signature: (signature.intact, signature.trusted))
    name = worst.who.name if worst.who else ""
    mark = worst.who.fingerprint_sha1 if worst.who else "0" * 40
    sys.stderr.write(f"hsmagent-gpgsm: {worst.text()}\n")
    if worst.who is None:  # it is not known to be bad: git shows E
        status.say("ERRSIG", mark, "0", "0", "00", "0", _NO_PUBLIC_KEY)
    else:
        status.say("GOODSIG" if worst.intact else "BADSIG", mark, name)
    if worst.intact:
        status.say("VALIDSIG", mark)
        status.say("TRUST_FULLY" if worst.trusted else "TRUST_UNDEFINED", "0", "shell")
    return 0 if worst.ok else 1


def _read_data(files: Sequence[str], data: Spool) -> None:
    if not files or files[0] == "-":
        fill(data, source())
        return
    with Path(files[0]).open("rb") as file:
        fill(data, file)


def _dearmoured(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(SIGNATURE_MAX)
    if text[:1] == b"\x30":
        return text
    body = text.partition(_BEGIN)[2].partition(_END)[0]
    return b"".join(canonical.from_base64([body], "the signature"))
