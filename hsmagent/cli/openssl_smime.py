"""`hsmagent-smime`: a stand-in for `openssl smime` and `openssl cms`, for mutt and Emacs.

Where openssl names key files, any word that finds a key will do: an address, a fingerprint, a
label (mutt gives a folder and such a word). Nothing is written before complete success, because
mutt ignores the exit status. When a message is made, nothing is said, because mutt takes any words
for a failure; when one is read, mutt shows the words together with the message.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hsmagent.cli.openssl_args import Arguments, parse
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import armour, canonical, identity, layers, mime, sign, store
from hsmagent.mail.cms import certificates, der
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.keys import Context, KeysFactory
from hsmagent.mail.mime import header_safe
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.mail.stdio import Out, read, reported, source, warn

PROGRAM = "hsmagent-smime"
_TEXT = b"Content-Type: text/plain\r\n\r\n"

if TYPE_CHECKING:
    from hsmagent.mail.verify import Judge


def main(argv: Sequence[str], keys: KeysFactory) -> int:
    """Do what `openssl smime` would: 0 done, 2 usage, 4 anything else, as openssl has it."""
    try:
        arguments = parse(argv)
    except UsageError as error:
        warn(PROGRAM, [str(error)])
        return 2
    return reported(PROGRAM, 4, lambda: _work(arguments, keys))


def _work(arguments: Arguments, keys: KeysFactory) -> int:
    if arguments.get("-passin") == "stdin":
        source().readline()  # a passphrase for a key file; we have none
    with read(arguments.get("-in"), sealed=True) as data, Spool(sealed=True) as result:
        _OPERATIONS[arguments.operation](arguments, data, keys, result)
        delivered = _deliver(arguments.get("-out"), Region.whole(result))
    # mutt hangs up when it has seen "Verification successful", and expects exit status 0 all the
    # same.
    return 0 if delivered or arguments.operation == "-verify" else 4


def _sign(arguments: Arguments, data: Spool, keys: KeysFactory, out: Spool) -> None:
    named = arguments.get("-signer") or arguments.get("-inkey")
    options = sign.Options(
        now=datetime.now(UTC),
        key=_name(named),
        opaque="-nodetach" in arguments.flags,
        files=(*_files(arguments, "-certfile"), *store.default().certificates()),
        program=PROGRAM,
        digest=arguments.get("-md").replace("-", "").lower(),
    )
    held = keys()
    region = Region.whole(data)
    if arguments.form("-outform") == "SMIME":
        out.write(_extra_header(arguments))
        sign.message(_with_text(arguments, region), out, held, options)
        return
    who = identity.find(held.keys(), options.key, options.now, files=options.files)

    def content() -> Iterator[bytes]:
        return _canonical(arguments, region)

    made = sign.content_signature(content, held, who, options, Context(PROGRAM))
    inside = content() if options.opaque else iter(())
    out.writelines(_formed(made.around(inside), arguments.form("-outform")))


def _verify(arguments: Arguments, data: Spool, _: KeysFactory, out: Spool) -> None:
    from hsmagent.mail import verify
    from hsmagent.mail.cms import signers
    from hsmagent.mail.cms.signers import Covered

    cms, content = _signed(arguments, data)
    signed = signers.read(cms)
    if content is None:
        if signed.content is None:
            raise UsageError("a detached signature needs -content")
        chunks = signed.content.chunks
    elif signed.content is None:
        chunks = content
    else:
        raise UsageError("a detached signature that brings its own content")
    judging = _judge(arguments)
    given = _files(arguments, "-certfile")
    if "-nointern" in arguments.flags:  # the signers are among those given, not in the message
        judging = replace(judging, signers=tuple(given))
    else:
        judging = replace(judging, known=(*judging.known, *given))
    found = verify.signatures(signed, Covered(chunks), judging, "the message")
    for signature in found:
        if not (signature.intact if "-noverify" in arguments.flags else signature.ok):
            raise HsmAgentError(f"Verification failure: {signature.problem}")
    if arguments.get("-signer"):
        named = {s.who.fingerprint for s in found if s.who}
        signer = [c for c in signed.certificates if c.fingerprint in named]
        pems = "".join(certificates.pem(certificate) for certificate in signer)
        Path(arguments.get("-signer")).write_text(pems, "ascii")
    # neomutt reads the first line, shows what follows, and may hang up before the content.
    by = "".join(f"{s.text().partition(chr(10))[0]}\n" for s in found if s.who)
    sys.stderr.write(f"Verification successful\n{by}")
    sys.stderr.flush()
    out.writelines(chunks())


def _judge(arguments: Arguments) -> "Judge":
    from hsmagent.cli.trust import judge
    from hsmagent.mail.roots import SYSTEM
    from hsmagent.mail.trust import Revocation

    # A program that names the system's roots, as Emacs must, means the usual ones: those that the
    # configuration says.
    files = [path for path in arguments.values.get("-CAfile", ()) if path not in SYSTEM]
    for folder in arguments.values.get("-CApath", ()):
        files += [str(path) for path in sorted(Path(folder).glob("*")) if path.is_file()]
    required = Revocation.LEAF if "-crl_check" in arguments.flags else Revocation.AT_HAND
    if "-crl_check_all" in arguments.flags:
        required = Revocation.ALL
    at = arguments.get("-attime")
    if at and not at.isdecimal():
        raise UsageError("-attime takes seconds since 1970")
    moment = datetime.fromtimestamp(int(at), UTC) if at else None
    return judge(files, at=moment, required=required, also_own=True)


def _decrypt(arguments: Arguments, data: Spool, keys: KeysFactory, out: Spool) -> None:
    from hsmagent.mail import decrypt

    files = (*_files(arguments, "-recip"), *store.default().certificates())
    cms, context = _encrypted(arguments, data)
    entity, warnings = decrypt.content(
        cms, keys(), context, decrypt.Options(files, program=PROGRAM)
    )
    head = entity.region.source.read_at(
        entity.region.start, entity.body.start - entity.region.start
    )
    warn(PROGRAM, warnings)
    out.write(sign.canonical_head(head, b"\n"))
    out.writelines(canonical.in_lines(entity, b"\n"))


def _encrypt(arguments: Arguments, data: Spool, keys: KeysFactory, out: Spool) -> None:
    from hsmagent.mail import encrypt
    from hsmagent.mail.cms import enveloped

    now, kept = datetime.now(UTC), store.default()
    words = (*arguments.files, *arguments.values.get("-recip", ()))
    find_own = identity.finder(keys, now)
    to = [_recipient(word, lambda one: kept.find(one, now) or find_own(one)) for word in words]
    if not to:
        raise UsageError("-encrypt needs at least one certificate")
    gcm = "gcm" in arguments.cipher.lower()
    region = _with_text(arguments, Region.whole(data))
    if arguments.form("-outform") == "SMIME":
        out.write(_extra_header(arguments))
        given = tuple(store.Entry(certificate) for certificate in to)
        encrypt.message(region, out, kept, encrypt.Options(now, given=given, gcm=gcm))
        return
    made = enveloped.build(lambda: _canonical(arguments, region), to, gcm=gcm)
    out.writelines(_formed(made, arguments.form("-outform")))


_OPERATIONS = {"-sign": _sign, "-verify": _verify, "-decrypt": _decrypt, "-encrypt": _encrypt}


# -- what comes in ---------------------------------------------------------------------------


def _signed(
    arguments: Arguments, data: Spool
) -> tuple[Source, Callable[[], Iterator[bytes]] | None]:
    """Return the CMS message and, for a detached signature, the content."""
    if arguments.form("-inform") != "SMIME":
        path = arguments.get("-content")
        if not path:
            return _cms(arguments, data), None
        content = Region.whole(read(path, sealed=True))
        return _cms(arguments, data), lambda: _canonical(arguments, content)
    layer = layers.find(mime.read(Region.whole(data)))
    if layer is None or not layer.is_signed:
        raise UsageError("the message is not signed")
    part = layer.part
    return layer.cms, None if part is None else lambda: canonical.crlf(part.chunks())


def _encrypted(arguments: Arguments, data: Spool) -> tuple[Source, Context]:
    if arguments.form("-inform") != "SMIME":
        return _cms(arguments, data), Context(PROGRAM)
    entity = mime.read(Region.whole(data))
    layer = layers.find(entity)
    if layer is None or not layer.is_encrypted:
        raise UsageError("the message is not encrypted")
    return layer.cms, sign.context_of(entity, PROGRAM)


def _cms(arguments: Arguments, data: Spool) -> Source:
    if arguments.form("-inform") == "DER":
        return data
    return armour.dearmoured(data)


def _name(word: str) -> str:
    """Return what names the key: openssl's file, or the last part of mutt's folder and word."""
    if not word:
        raise UsageError("say whose key signs: -signer with an address, fingerprint or label")
    if Path(word).is_file():
        return certificates.read_file(word)[0].fingerprint
    return word if word.startswith("pkcs11:") else word.rpartition("/")[2]


def _recipient(word: str, find: Callable[[str], store.Entry | None]) -> Certificate:
    if Path(word).is_file():
        return certificates.read_file(word)[0]
    found = find(word.rpartition("/")[2])
    if found is None:
        raise UsageError(f"there is no certificate for {word}; `hsmagent contacts add` takes one")
    return found.certificate


def _files(arguments: Arguments, option: str) -> list[Certificate]:
    """Return the certificates in those of the files that exist: mutt names some that do not."""
    paths = arguments.values.get(option, ())
    return [c for path in paths if Path(path).is_file() for c in certificates.read_file(path)]


# -- what goes out ---------------------------------------------------------------------------


def _deliver(path: str, result: Region) -> bool:
    if path in {"", "-"}:
        out = Out()
        out.writelines(result.chunks())
        return out.finish()
    with Path(path).open("wb") as file:
        file.writelines(result.chunks())
    return True


def _canonical(arguments: Arguments, region: Region) -> Iterator[bytes]:
    return region.chunks() if "-binary" in arguments.flags else canonical.crlf(region.chunks())


def _with_text(arguments: Arguments, region: Region) -> Region:
    if "-text" not in arguments.flags:
        return region
    spool = Spool(sealed=True)
    spool.write(_TEXT)
    spool.writelines(region.chunks())
    return Region.whole(spool)


def _extra_header(arguments: Arguments) -> bytes:
    given = [(option, arguments.get(option)) for option in ("-to", "-from", "-subject")]
    lines = (f"{name[1:].title()}: {header_safe(value, name)}\n" for name, value in given if value)
    return "".join(lines).encode()


def _formed(chunks: Iterator[bytes], form: str) -> Iterator[bytes]:
    if form == "DER":
        yield from chunks
        return
    yield der.pem("CMS", b"".join(chunks))
