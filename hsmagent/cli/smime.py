"""`hsmagent smime …`: a message in, one out, or what is wrong with it."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hsmagent.cli.arguments import Given, moment
from hsmagent.cli.progress import watched
from hsmagent.mail import stdio, store
from hsmagent.mail.keys import KeysFactory
from hsmagent.mail.spool import Region, Spool
from hsmagent.mail.stdio import Out, read

if TYPE_CHECKING:
    from hsmagent.mail import sign
    from hsmagent.mail.cms.certificates import Certificate
    from hsmagent.mail.mime import Entity
    from hsmagent.mail.report import Report
    from hsmagent.mail.verify import Judge


def run(given: Given) -> int:
    """Run one verb over the daemon's keys. Return the exit status."""
    from hsmagent.cli.mail_programs import over_keys

    verb = partial(_VERBS[given.command.name], given)
    return reported(lambda: over_keys(verb))


def _sign(given: Given, keys: KeysFactory) -> int:
    """Sign a message or MIME entity."""
    from hsmagent.mail import sign

    options = sign_options(given, datetime.now(UTC))
    out = Out()
    with read(given.word) as spool, watched(spool, "Signing", printed=True) as source:
        warn(sign.message(Region.whole(source), out, keys(), options))
    return 0 if out.finish() else 1


def sign_options(given: Given, now: datetime) -> "sign.Options":
    """Return how to sign a mail or a file, from the command's options."""
    from hsmagent.mail import sign

    return sign.Options(
        now=now,
        key=given.value("--key"),
        sender=given.value("--from") if given.command.option("--from") else "",
        opaque=given.flag("--opaque"),
        pss=given.flag("--pss"),
        allow_expired=given.flag("--allow-expired"),
        files=own_files(given),
        program="hsmagent smime",
        leads_to_root=store.default().leads_to_root,
    )


def own_files(given: Given) -> "tuple[Certificate, ...]":
    """Return the certificates given, and those of the store: issuers, and our own old ones."""
    return (*certificates_in(given.values("--certificate")), *store.default().certificates())


def certificates_in(paths: Sequence[str]) -> "list[Certificate]":
    """Return all certificates in these files."""
    from hsmagent.mail.cms import certificates

    return [certificate for path in paths for certificate in certificates.read_file(path)]


def _verify(given: Given, _: KeysFactory) -> int:
    """Say who signed which part, and whether it holds."""
    from hsmagent.mail import verify

    judge = judge_of(given)
    with read(given.word) as spool:
        with watched(spool, "Verifying", printed=False) as source:
            found = verify.message(Region.whole(source), judge)
        report = found.report.json() if given.flag("--json") else found.report.text()
        if given.value("--content") == "-":
            sys.stderr.write(report + "\n")
        else:
            Out().say(report)
        if given.value("--content") and found.report.ok and found.content:
            with _output(given.value("--content")) as out:
                out.writelines(found.content.chunks())
    return 0 if found.report.ok else 1


def _decrypt(given: Given, keys: KeysFactory) -> int:
    """Give the entity inside."""
    from hsmagent.mail import decrypt

    options = decrypt.Options(
        files=own_files(given),
        judge=judge_of(given) if given.flag("--all") else None,
        program="hsmagent smime decrypt",
    )
    out, status = Out(), 0
    with read(given.word) as spool, watched(spool, "Decrypting", printed=True) as source:
        done = decrypt.message(Region.whole(source), out, keys(), options)
        warn(done.warnings)
        if done.report is not None:
            _write_report(given, done.report)
            status = 0 if done.report.ok or not done.report.signatures else 1
    return status if out.finish() else 1


def _write_report(given: Given, report: "Report") -> None:
    text = report.json() if given.flag("--json") else report.text()
    if given.value("--report"):
        Path(given.value("--report")).write_text(text + "\n", "utf-8")
    else:
        sys.stderr.write(text + "\n")


def _encrypt(given: Given, keys: KeysFactory) -> int:
    """Encrypt for those in To and Cc, and for ourselves."""
    from hsmagent.mail import encrypt, identity, mime, sign

    now, kept = datetime.now(UTC), store.default()
    with (
        read(given.word, sealed=True) as spool,
        Spool(sealed=True) as signed,
        watched(spool, "Encrypting", printed=True) as source,
    ):
        region = Region.whole(source)
        options = encrypt.Options(
            now,
            to=tuple(given.values("--to")),
            given=tuple(store.Entry(c) for c in certificates_in(given.values("--recipient"))),
            own=_own_copy(mime.read(region), given, keys, kept, now),
            find_own=identity.finder(keys, now),
            gcm={"gcm": True, "cbc": False}.get(given.value("--cipher")),
            oaep=given.flag("--oaep"),
        )
        if given.flag("--sign"):
            warn(sign.message(region, signed, keys(), sign_options(given, now)))
            region = Region.whole(signed)
        out = Out()
        warn(encrypt.message(region, out, kept, options))
        return 0 if out.finish() else 1


def _own_copy(
    entity: "Entity", given: Given, keys: KeysFactory, kept: store.Store, now: datetime
) -> tuple[store.Entry, ...]:
    """Find what our own copy is encrypted to: in the store, else on a token."""
    from hsmagent.mail import encrypt, identity

    if given.flag("--not-to-self"):
        return ()
    own = encrypt.own_entry(entity, kept, given.value("--from"), now)
    if own is None:
        sender = given.value("--from") or entity.one("from")
        own = identity.for_encryption(keys().keys(), sender, now)
    return (identity.ours(own, keys),)


def judge_of(given: Given) -> "Judge":
    """Return the judge that the options about trust ask for."""
    from hsmagent.cli.trust import judge
    from hsmagent.mail.trust import Revocation

    at = given.value("--at")
    return judge(
        given.values("--ca"),
        given.values("--crl"),
        at=moment(at) if at else None,
        required=Revocation.ALL if given.flag("--require-crl") else Revocation.AT_HAND,
    )


def warn(warnings: Sequence[str]) -> None:
    """Say each of them on stderr."""
    stdio.warn("hsmagent", warnings)


def _output(path: str) -> "AbstractContextManager[sign.Writer]":
    return nullcontext(Out()) if path == "-" else Path(path).open("wb")


def reported(work: Callable[[], int | None]) -> int:
    """Do the work and return its status, or 0; what goes wrong is one line on stderr, and a 1."""

    def finished() -> int:
        status = work() or 0
        return status if Out().finish() else 1

    return stdio.reported("hsmagent", 1, finished)


_VERBS: dict[str, Callable[[Given, KeysFactory], int]] = {
    "smime sign": _sign,
    "smime verify": _verify,
    "smime encrypt": _encrypt,
    "smime decrypt": _decrypt,
}
