"""`hsmagent file …`: any file as CMS (RFC 5652), which `openssl cms` and gpgsm read and write, too.

A file passes through in pieces, whatever its size. The result is written once it is known to be
whole, and never over a file that is there.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hsmagent.cli.arguments import Given
from hsmagent.cli.mail_keys import FILES
from hsmagent.cli.output import on_terminal
from hsmagent.cli.progress import watched
from hsmagent.cli.smime import (
    certificates_in,
    judge_of,
    own_files,
    reported,
    sign_options,
    warn,
)
from hsmagent.errors import UsageError
from hsmagent.mail import armour, store
from hsmagent.mail.keys import Context, KeysFactory
from hsmagent.mail.spool import MAX_FILE, OpenFile, Region, Source, Spool, fill
from hsmagent.mail.stdio import Out, source
from hsmagent.model import printable

if TYPE_CHECKING:
    from hsmagent.mail.cms.signers import SignedData

_STDIO = {"", "-"}
_PRIVATE, _PUBLIC = 0o600, 0o666  # before the umask


def run(given: Given) -> int:
    """Run one verb over the daemon's keys. Return the exit status."""
    from hsmagent.cli.mail_programs import over_keys

    verb = partial(_with_files, given)
    return reported(lambda: over_keys(verb))


def _with_files(given: Given, keys: KeysFactory) -> int:
    _need_place(given)
    with ExitStack() as files:
        _, verb = _VERBS[given.command.name]
        return verb(given, keys, files)


def _encrypt(given: Given, keys: KeysFactory, files: ExitStack) -> int:
    """Encrypt for those named. Nobody else can read the file, not even whoever encrypted it."""
    from hsmagent.mail import encrypt
    from hsmagent.mail.cms import enveloped

    now, kept = datetime.now(UTC), store.default()
    to = tuple(given.values("--to"))
    recipients = [store.Entry(c) for c in certificates_in(given.values("--recipient"))]
    if not to and not recipients:
        raise UsageError("say who may read it: --to ADDRESS (your own, too), or --recipient FILE")
    unknown = [address for address in to if kept.find(address, now) is None]
    options = encrypt.Options(
        now,
        to=to,
        given=(*recipients, *_own(unknown, keys, now)),
        gcm={"gcm": True, "cbc": False}.get(given.value("--cipher")),
        oaep=given.flag("--oaep"),
    )
    everybody = encrypt.for_addresses(to, kept, options)
    certificates = [entry.certificate for entry in everybody]
    plain = Region.whole(_opened(given.word, given, files))
    gcm = encrypt.authenticated(everybody, options)
    warn(encrypt.weak(certificates))
    made = enveloped.build(plain.chunks, certificates, gcm=gcm, oaep=options.oaep)
    return _deliver(given, made, _PUBLIC)


def _own(addresses: Iterable[str], keys: KeysFactory, now: datetime) -> list[store.Entry]:
    """Return the tokens' certificates for those of these addresses that are ours."""
    from hsmagent.mail import identity

    return [entry for entry in map(identity.finder(keys, now), addresses) if entry]


def _decrypt(given: Given, keys: KeysFactory, files: ExitStack) -> int:
    """Give the file inside."""
    from hsmagent.mail import decrypt

    cms = _message(given.word, given, files)
    plain = files.enter_context(Spool(sealed=True, limit=MAX_FILE))
    options = decrypt.Options(own_files(given))
    warn(decrypt.into(plain, cms, keys(), _context(given.word), options))
    return _deliver(given, Region.whole(plain).chunks(), _PRIVATE)


def _sign(given: Given, keys: KeysFactory, files: ExitStack) -> int:
    """Sign a file."""
    from hsmagent.mail import identity, sign

    options = sign_options(given, datetime.now(UTC))
    held = keys()
    every = held.keys()
    name = options.key or identity.only(every, options.files)
    if not name:
        raise UsageError("say whose key signs: --key with an address, a fingerprint or a label")
    who = identity.find(
        every, name, options.now, files=options.files, allow_expired=options.allow_expired
    )
    content = Region.whole(_opened(given.word, given, files))
    made = sign.content_signature(content.chunks, held, who, options, _context(given.word))
    warn(made.warnings)
    return _deliver(given, made.around(content.chunks() if options.opaque else ()), _PUBLIC)


def _verify(given: Given, _: KeysFactory, files: ExitStack) -> int:
    """Say who signed a file, and whether it holds."""
    from hsmagent.mail import verify
    from hsmagent.mail.cms import signers
    from hsmagent.mail.report import Report

    data = signers.read(_message(given.words[0], given, files))
    content = _content(data, given, files)
    covered = signers.Covered(content.chunks)
    report = Report(signatures=tuple(verify.signatures(data, covered, judge_of(given), "the file")))
    text = report.json() if given.flag("--json") else report.text()
    if given.value("--output") == "-":
        sys.stderr.write(text + "\n")
    else:
        Out().say(text)
    if not report.ok:
        return 1
    return _deliver(given, content.chunks(), _PRIVATE) if given.value("--output") else 0


def _content(data: "SignedData", given: Given, files: ExitStack) -> Region:
    """Return what was signed: the other file, or a copy of the one inside the signature."""
    if len(given.words) > 1:
        if data.content is not None:
            raise UsageError("the signature has its file inside; name no other")
        if given.flag("--output"):
            raise UsageError("there is nothing inside the signature to write")
        return Region.whole(_opened(given.words[1], given, files))
    if data.content is None:
        raise UsageError("the signature stands alone; name the file that it is of, too")
    # A copy: what is written must be what was checked, whoever changes the file meanwhile.
    inside = files.enter_context(Spool(sealed=True, limit=MAX_FILE))
    inside.writelines(data.content.chunks())
    return Region.whole(inside)


# -- what comes in ---------------------------------------------------------------------------


def _opened(path: str, given: Given, files: ExitStack) -> Source:
    """Return a file, or standard input, to be read at any place; a pipe is copied first."""
    file = source() if path in _STDIO else None
    if file is None:
        file = files.enter_context(Path(path).open("rb"))  # noqa: SIM115 (it is one)
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and file.tell() == 0:
        if found.st_size > MAX_FILE:
            raise UsageError(f"{path or 'the input'} is larger than {MAX_FILE >> 30} GiB")
        return _watched(OpenFile(file, found.st_size), given, files)
    spool = files.enter_context(Spool(sealed=True, limit=MAX_FILE))
    fill(spool, file)
    return _watched(spool, given, files)


def _watched(source: Source, given: Given, files: ExitStack) -> Source:
    what, _ = _VERBS[given.command.name]
    printed = given.value("--output") in _STDIO
    return files.enter_context(watched(source, what, printed=printed))


def _message(path: str, given: Given, files: ExitStack) -> Source:
    found = _opened(path, given, files)
    if not armour.may_be_message(found):
        what = "standard input" if path in _STDIO else printable(path)
        raise UsageError(
            f"{what} is no CMS message, neither DER nor PEM; mails are for `hsmagent smime`"
        )
    return armour.dearmoured(found)


def _context(path: str) -> Context:
    return Context(FILES, subject="" if path in _STDIO else Path(path).name)


# -- what goes out ---------------------------------------------------------------------------


def _need_place(given: Given) -> None:
    """Refuse, before anybody is asked for a PIN, a result that could not be written."""
    from hsmagent.manage import files

    path = given.value("--output")
    if path not in _STDIO:
        files.need_new(Path(path))
    elif given.command.name in {"file encrypt", "file sign"} and not path and on_terminal():
        raise UsageError("what comes out is not for a terminal; name a file with --output")


def _deliver(given: Given, chunks: Iterable[bytes], mode: int) -> int:
    path = given.value("--output")
    if path in _STDIO:
        out = Out()
        out.writelines(chunks)
        return 0 if out.finish() else 1
    _make(Path(path), chunks, mode)
    return 0


def _make(path: Path, chunks: Iterable[bytes], mode: int) -> None:
    """Make a new file. It gets its name once all of it is on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


# command → what its progress is called, and what carries it out
_VERBS: dict[str, tuple[str, Callable[[Given, KeysFactory, ExitStack], int]]] = {
    "file encrypt": ("Encrypting", _encrypt),
    "file decrypt": ("Decrypting", _decrypt),
    "file sign": ("Signing", _sign),
    "file verify": ("Verifying", _verify),
}
