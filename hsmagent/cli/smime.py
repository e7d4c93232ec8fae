"""`hsmagent smime …` and `hsmagent certs …`: arguments in, exit status out."""

import sys
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import store
from hsmagent.mail.keys import MailKeys
from hsmagent.mail.spool import Region, Spool, fill
from hsmagent.mail.stdio import Out, source
from hsmagent.model import printable

if TYPE_CHECKING:
    from hsmagent.mail import sign
    from hsmagent.mail.cms.certificates import Certificate
    from hsmagent.mail.mime import Entity
    from hsmagent.mail.report import Report
    from hsmagent.mail.verify import Judge

KeysFactory = Callable[[], MailKeys]


def run(arguments: list[str]) -> int:
    """Run one verb over the daemon's keys. Return the exit status."""
    from hsmagent.cli import mail_programs

    return mail_programs.run(__name__, arguments)


def main(argv: Sequence[str], keys: KeysFactory) -> int:
    """Run one verb; `argv` starts with "smime" or "certs". 0 done, 1 failed, 2 usage."""
    arguments = _parse(argv)
    try:
        status: int = arguments.run(arguments, keys)
        return status if Out().finish() else 1
    except HsmAgentError as error:
        sys.stderr.write(f"hsmagent: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"hsmagent: {error.filename or 'the message'}: {error.strerror}\n")
        return 1


def _sign(arguments: Namespace, keys: KeysFactory) -> int:
    """Sign a message or MIME entity."""
    from hsmagent.mail import sign

    options = _sign_values(arguments, datetime.now(UTC))
    out = Out()
    with _read(arguments.file) as spool:
        _warn(sign.message(Region.whole(spool), out, keys(), options))
    return 0 if out.finish() else 1


def _sign_values(arguments: Namespace, now: datetime) -> "sign.Options":
    from hsmagent.mail import sign

    return sign.Options(
        now=now,
        key=arguments.key,
        sender=arguments.sender,
        opaque=arguments.opaque,
        pss=arguments.pss,
        allow_expired=arguments.allow_expired,
        files=_own_files(arguments),
        program="hsmagent smime",
    )


def _own_files(arguments: Namespace) -> "tuple[Certificate, ...]":
    """Return the certificates given, and those of the store: issuers, and our own old ones."""
    stored = (entry.certificate for entry in store.default().entries())
    return (*_certificates(arguments.certificate), *stored)


def _certificates(paths: Sequence[str]) -> "list[Certificate]":
    from hsmagent.mail.cms import certificates

    return [certificate for path in paths for certificate in certificates.read_file(path)]


def _verify(arguments: Namespace, _: KeysFactory) -> int:
    """Say who signed which part, and whether it holds."""
    from hsmagent.mail import verify

    with _read(arguments.file) as spool:
        found = verify.message(Region.whole(spool), _judge(arguments))
        report = found.report.json() if arguments.json else found.report.text()
        if arguments.content == "-":
            sys.stderr.write(report + "\n")
        else:
            _say(report)
        if arguments.content and found.report.ok and found.content:
            with _output(arguments.content) as out:
                for chunk in found.content.chunks():
                    out.write(chunk)
    return 0 if found.report.ok else 1


def _decrypt(arguments: Namespace, keys: KeysFactory) -> int:
    """Give the entity inside."""
    from hsmagent.mail import decrypt

    options = decrypt.Options(
        files=_own_files(arguments),
        judge=_judge(arguments) if arguments.all else None,
        program="hsmagent smime decrypt",
    )
    out, status = Out(), 0
    with _read(arguments.file) as spool:
        done = decrypt.message(Region.whole(spool), out, keys(), options)
        _warn(done.warnings)
        if done.report is not None:
            _write_report(arguments, done.report)
            status = 0 if done.report.ok or not done.report.signatures else 1
    return status if out.finish() else 1


def _write_report(arguments: Namespace, report: "Report") -> None:
    text = report.json() if arguments.json else report.text()
    if arguments.report:
        Path(arguments.report).write_text(text + "\n", "utf-8")
    else:
        sys.stderr.write(text + "\n")


def _encrypt(arguments: Namespace, keys: KeysFactory) -> int:
    """Encrypt for those in To and Cc, and for ourselves."""
    from hsmagent.mail import encrypt, mime, sign

    now, kept = datetime.now(UTC), store.default()
    with _read(arguments.file, sealed=True) as spool, Spool(sealed=True) as signed:
        region = Region.whole(spool)
        options = encrypt.Options(
            now,
            to=tuple(arguments.to),
            given=tuple(store.Entry(c) for c in _certificates(arguments.recipient)),
            own=_own_copy(mime.read(region), arguments, keys, kept, now),
            gcm={"gcm": True, "cbc": False}.get(arguments.cipher),
            oaep=arguments.oaep,
        )
        if arguments.sign:
            _warn(sign.message(region, signed, keys(), _sign_values(arguments, now)))
            region = Region.whole(signed)
        out = Out()
        _warn(encrypt.message(region, out, kept, options))
        return 0 if out.finish() else 1


def _own_copy(
    entity: "Entity", arguments: Namespace, keys: KeysFactory, kept: store.Store, now: datetime
) -> tuple[store.Entry, ...]:
    """Find what our own copy is encrypted to: in the store, else on a token."""
    from hsmagent.mail import encrypt, identity

    if arguments.not_to_self:
        return ()
    own = encrypt.own_entry(entity, kept, arguments.sender, now)
    if own is None:
        sender = arguments.sender or entity.one("from")
        own = identity.for_encryption(keys().keys(), sender, now)
    return (encrypt.can_all(own),)


def _certs_add(arguments: Namespace, _: KeysFactory) -> int:
    """Take in certificates, or the signers of a message."""
    from hsmagent.mail.cms import certificates

    kept = store.default()
    for path in arguments.file:
        found = certificates.read(_contents(path))
        for certificate in found:
            kept.add(certificate, root=arguments.root)
            _say(_line(certificate))
        if not found:
            _learn(path, arguments, kept)
    return 0


def _learn(path: str, arguments: Namespace, kept: store.Store) -> None:
    """Take the signers of a signed message, with what they say they can read."""
    from hsmagent.mail import verify

    def learned(certificate: "Certificate", capabilities: frozenset[str]) -> None:
        kept.add(certificate, capabilities)
        _say(_line(certificate))

    with _read(path) as spool:
        anchors = replace(_judge(arguments), learned=learned)
        report = verify.message(Region.whole(spool), anchors).report
    if not any(signature.ok for signature in report.signatures):
        raise UsageError(f"{path} is neither a certificate nor a message whose signature holds")


def _certs_list(_: Namespace, __: KeysFactory) -> int:
    """Show the certificates that were taken in."""
    kept = store.default()
    for root in (False, True):
        for entry in kept.entries(root=root):
            _say(_line(entry.certificate) + ("  (root)" if root else ""))
    return 0


def _certs_remove(arguments: Namespace, _: KeysFactory) -> int:
    """Remove certificates by address or fingerprint."""
    _say(f"{store.default().remove(arguments.wanted)} removed")
    return 0


def _judge(arguments: Namespace) -> "Judge":
    from hsmagent.cli.trust import judge

    return judge(arguments.ca, arguments.crl, at=arguments.at, require_crl=arguments.require_crl)


def _line(certificate: "Certificate") -> str:
    addresses = printable(", ".join(certificate.addresses)) or "no address"
    until = f"{certificate.not_after:%Y-%m-%d}"
    return f"{certificate.fingerprint[:16]}  {until}  {addresses}  {certificate.name}"


def _say(line: str) -> None:
    Out().say(line)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        sys.stderr.write(f"hsmagent: {warning}\n")


def _contents(path: str) -> bytes:
    with _read(path) as spool:
        return spool.read_at(0, spool.size)


def _read(path: str, *, sealed: bool = False) -> Spool:
    spool = Spool(sealed=sealed)
    if path == "-":
        fill(spool, source())
    else:
        with Path(path).open("rb") as file:
            fill(spool, file)
    return spool


def _output(path: str) -> "AbstractContextManager[sign.Writer]":
    return nullcontext(Out()) if path == "-" else Path(path).open("wb")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse(argv: Sequence[str]) -> Namespace:
    """Read the arguments of one verb; the options of the others would take time to set up."""
    group, *words = argv
    verbs = _VERBS[group]
    if not words or words[0] not in verbs:
        parser = ArgumentParser(f"hsmagent {group}")
        names = parser.add_subparsers(metavar="VERB", required=True)
        for name, (run, _) in verbs.items():
            names.add_parser(name, help=run.__doc__)
        return parser.parse_args(words)
    run, add_options = verbs[words[0]]
    # To find the width by itself it would import shutil, and that every compressor there is.
    shape = partial(HelpFormatter, width=78)
    name = f"hsmagent {group} {words[0]}"
    parser = ArgumentParser(name, description=run.__doc__, formatter_class=shape)
    parser.set_defaults(run=run)
    add_options(parser)
    return parser.parse_args(words[1:])


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--root", action="store_true", help="trust it to issue others")
    _trust_options(parser)
    parser.add_argument("file", nargs="+")


def _remove_options(parser: ArgumentParser) -> None:
    parser.add_argument("wanted", metavar="ADDRESS|FINGERPRINT")


def _verify_options(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the report for a program")
    parser.add_argument(
        "--content", metavar="FILE", help="write what is signed there (- is stdout)"
    )
    _trust_options(parser)
    parser.add_argument("file", nargs="?", default="-")


def _decrypt_options(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="take off further layers, and verify")
    parser.add_argument("--json", action="store_true", help="with --all: the report for a program")
    parser.add_argument("--report", metavar="FILE", help="with --all: write the report there")
    parser.add_argument("--certificate", action="append", default=[], metavar="FILE")
    _trust_options(parser)
    parser.add_argument("file", nargs="?", default="-")


def _encrypt_options(parser: ArgumentParser) -> None:
    parser.add_argument("--recipient", action="append", default=[], metavar="FILE")
    parser.add_argument("--to", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--not-to-self", action="store_true", help="no copy that we can read")
    parser.add_argument("--cipher", choices=("auto", "gcm", "cbc"), default="auto")
    parser.add_argument("--oaep", action="store_true", help="RSA-OAEP instead of PKCS #1 v1.5")
    parser.add_argument("--sign", action="store_true", help="sign first")
    _sign_options(parser)


def _sign_options(parser: ArgumentParser) -> None:
    parser.add_argument("--key", default="", help="URI, fingerprint, label or address")
    parser.add_argument("--from", dest="sender", default="", metavar="ADDRESS")
    parser.add_argument("--opaque", action="store_true", help="content inside the signature")
    parser.add_argument("--pss", action="store_true", help="RSA-PSS instead of PKCS #1 v1.5")
    parser.add_argument("--allow-expired", action="store_true")
    parser.add_argument("--certificate", action="append", default=[], metavar="FILE")
    parser.add_argument("file", nargs="?", default="-")


def _trust_options(parser: ArgumentParser) -> None:
    parser.add_argument("--ca", action="append", default=[], metavar="FILE", help="roots to trust")
    parser.add_argument("--crl", action="append", default=[], metavar="FILE")
    parser.add_argument("--require-crl", action="store_true", help="no CRL is a failure")
    parser.add_argument("--at", type=_moment, metavar="TIME", help="judge the chain as of then")


_Run = Callable[[Namespace, KeysFactory], int]
_VERBS: dict[str, dict[str, tuple[_Run, Callable[[ArgumentParser], None]]]] = {
    "smime": {
        "sign": (_sign, _sign_options),
        "verify": (_verify, _verify_options),
        "encrypt": (_encrypt, _encrypt_options),
        "decrypt": (_decrypt, _decrypt_options),
    },
    "certs": {
        "add": (_certs_add, _add_options),
        "list": (_certs_list, lambda _: None),
        "remove": (_certs_remove, _remove_options),
    },
}
