"""`hsmagent-gpgsm`: gpgsm's arguments and status lines, for git (gpg.format = x509) and Emacs.

git signs by `--status-fd=2 -bsau KEY`, data on stdin, PEM on stdout, and verifies by
`--status-fd=1 --verify FILE -`, data on stdin. Status lines: GnuPG's doc/DETAILS.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hsmagent import __version__
from hsmagent.cli.gpgsm_args import Arguments, parse
from hsmagent.cli.gpgsm_verify import HASH, PROGRAM, PUBLIC_KEY, Status, read_given, verify
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import purpose, store
from hsmagent.mail.armour import dearmoured
from hsmagent.mail.cms import certificates, der, oids
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.keys import Context, KeysFactory
from hsmagent.mail.spool import Region
from hsmagent.mail.stdio import Out, reported, warn
from hsmagent.model import Key, KeyType, printable

# git verifies each commit of a log in a process of its own: what that needs is imported here, and
# the rest where it is used.
if TYPE_CHECKING:
    from hsmagent.cli.gpgsm_list import Listed
    from hsmagent.mail.identity import Identity
    from hsmagent.mail.sign import Signed

_VERSION = "gpgsm (GnuPG) 2.2.40\nhsmagent-gpgsm {}, in gpgsm's place\n"

_AES256 = 9  # the OpenPGP registry's number


def main(argv: Sequence[str], keys: KeysFactory) -> int:
    """Do what gpgsm would. Return 0 for done, 1 for failed or for a signature that is not good."""

    def work() -> int:
        arguments = parse(argv)
        return _COMMANDS[arguments.command](arguments, Status(arguments.get("--status-fd")), keys)

    return reported(PROGRAM, 1, work)


def _sign(arguments: Arguments, status: Status, keys: KeysFactory) -> int:
    from hsmagent.cli import gpgsm_list
    from hsmagent.mail import identity, sign

    opaque = arguments.command == "sign"
    now, held = datetime.now(UTC), keys()
    files = store.default().certificates()
    wanted = arguments.get("--local-user")
    name = wanted or identity.only(held.keys(), files)
    if not name:
        raise UsageError("say whose key signs: -u KEY (git: user.signingKey or your address)")
    who = identity.find(held.keys(), name, now, files=files)
    options = sign.Options(now, files=files, opaque=opaque)
    with read_given(arguments.files) as data:
        region = Region.whole(data)
        status.say("BEGIN_SIGNING", "H8")
        context = _context(region, wanted or who.certificate.name)
        made = sign.content_signature(region.chunks, held, who, options, context)
        whole = made.around(region.chunks() if opaque else ())
        if not _deliver(arguments, "SIGNED MESSAGE", whole):
            return 1
    mark, kind = gpgsm_list.fingerprint(who.certificate), "S" if opaque else "D"
    status.say("SIG_CREATED", kind, *_numbers(who, made), "00", int(time.time()), mark)
    return 0


def _context(data: Region, wanted: str) -> Context:
    """Return what a prompt tells: the first line of a git object's message, after its header."""
    text = data.source.read_at(0, min(data.size, 16384)).decode("utf-8", "replace")
    subject = text.partition("\n\n")[2].partition("\n")[0]
    return Context("git", wanted, subject)


def _numbers(who: "Identity", made: "Signed") -> tuple[int, int]:
    return PUBLIC_KEY[who.key.key_type], HASH[oids.digest_name(made.scheme)]


def _verify(arguments: Arguments, status: Status, _: KeysFactory) -> int:
    return verify(arguments, status)


# -- encryption ------------------------------------------------------------------------------


def _encrypt(arguments: Arguments, status: Status, keys: KeysFactory) -> int:
    from hsmagent.mail.cms import enveloped

    to = [_recipient(word, status, keys) for word in arguments.values.get("--recipient", ())]
    if not to:
        raise UsageError("say to whom: -r WHOM")
    with read_given(arguments.files, sealed=True) as data:
        status.say("BEGIN_ENCRYPTION", "2", _AES256)
        made = enveloped.build(Region.whole(data).chunks, to, gcm=False)
        if not _deliver(arguments, "ENCRYPTED MESSAGE", made):
            return 1
    status.say("END_ENCRYPTION")
    return 0


def _recipient(word: str, status: Status, keys: KeysFactory) -> Certificate:
    """Return the certificate of a recipient: from the store, else one of our own."""
    now = datetime.now(UTC)
    known = [(_bare(c), c) for c in store.default().certificates() if c.valid_at(now)]
    chosen = _best(word, known) or _best(word, _own(keys().keys()))
    if chosen is not None:
        return chosen
    status.say("INV_RECP", "1", word)
    raise UsageError(
        f"there is no certificate to encrypt to for {printable(word)}; `hsmagent contacts add` "
        "takes one"
    )


def _best(word: str, listed: Sequence[tuple[Key, Certificate]]) -> Certificate | None:
    from hsmagent.mail import selectors

    for test in selectors.tests(word):
        if chosen := purpose.best_to_encrypt_to([c for key, c in listed if test(key, c)]):
            return chosen
    return None


def _decrypt(arguments: Arguments, status: Status, keys: KeysFactory) -> int:
    from hsmagent.mail import decrypt

    with read_given(arguments.files) as data:
        cms = dearmoured(data)
        status.say("BEGIN_DECRYPTION")
        try:
            options = decrypt.Options(store.default().certificates(), program=PROGRAM)
            entity, warnings = decrypt.content(cms, keys(), Context(PROGRAM), options)
        except HsmAgentError:
            status.say("DECRYPTION_FAILED")
            status.say("END_DECRYPTION")
            raise
    warn(PROGRAM, warnings)
    done = _write(arguments, entity.region.chunks())
    status.say("DECRYPTION_OKAY")
    status.say("END_DECRYPTION")
    return 0 if done else 1


# -- lists -----------------------------------------------------------------------------------


def _list(arguments: Arguments, _: Status, keys: KeysFactory) -> int:
    from hsmagent.cli import gpgsm_list
    from hsmagent.mail import selectors

    secret = arguments.command == "list-secret-keys"
    listed: list[Listed] = list(_own(keys().keys()))
    if not secret:
        known = {certificate for _, certificate in listed}
        listed += [(None, c) for c in store.default().certificates() if c not in known]
    if arguments.files:
        listed = [
            (key, c)
            for key, c in listed
            if any(test(key or _bare(c), c) for f in arguments.files for test in selectors.tests(f))
        ]
    grips = "--with-key-data" in arguments.flags
    lines: Iterable[str] = gpgsm_list.text(listed)
    if "--with-colons" in arguments.flags:
        lines = gpgsm_list.colons(listed, secret=secret, grips=grips)
    out = Out()
    for line in lines:
        out.say(line)
    return 0 if out.finish() and (listed or not arguments.files) else 1


def _own(keys: Sequence[Key]) -> list[certificates.Pair]:
    return certificates.of_keys(keys, store.default().certificates())


def _bare(certificate: Certificate) -> Key:
    """Return a key that stands for somebody else's certificate, with the public half alone."""
    return Key(certificate.spki, KeyType.RSA, 0)


def _say_version(_: Arguments, __: Status, ___: KeysFactory) -> int:
    sys.stdout.write(_VERSION.format(__version__))
    return 0


# -- what goes out ---------------------------------------------------------------------------


def _deliver(arguments: Arguments, label: str, chunks: Iterable[bytes]) -> bool:
    """Write a CMS message, as PEM with --armor."""
    if "--armor" in arguments.flags:
        chunks = iter((der.pem(label, b"".join(chunks)),))
    return _write(arguments, iter(chunks))


def _write(arguments: Arguments, chunks: Iterator[bytes]) -> bool:
    path = arguments.get("--output")
    if path and path != "-":
        draft = Path(f"{path}.{os.getpid()}.new")
        with draft.open("wb") as file:
            file.writelines(chunks)
        draft.replace(path)
        return True
    out = Out()
    out.writelines(chunks)
    return out.finish()


_COMMANDS: dict[str, Callable[[Arguments, Status, KeysFactory], int]] = {
    "sign": _sign,
    "detach-sign": _sign,
    "verify": _verify,
    "encrypt": _encrypt,
    "decrypt": _decrypt,
    "list-keys": _list,
    "list-secret-keys": _list,
    "version": _say_version,
}
