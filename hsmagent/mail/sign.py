"""`sign`: one entity or message in, multipart/signed or opaque signed-data out."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Protocol

from hsmagent.errors import UsageError
from hsmagent.mail import address, canonical, digest, headers, identity, mime
from hsmagent.mail.cms import oids, signed
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.parse import public_key
from hsmagent.mail.identity import Identity, NoKey
from hsmagent.mail.keys import Context, MailKeys
from hsmagent.mail.mime import Entity, Field
from hsmagent.mail.spool import Region, Source
from hsmagent.model import Key, Scheme


class Writer(Protocol):
    """Where a result goes: a binary file, a Spool or an Out."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""

    def writelines(self, chunks: Iterable[bytes], /) -> object:
        """Take every chunk, to its end."""


class NoSender(Malformed):
    """The From has an address that cannot be read."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to sign. key: see identity.find; sender: an address, where no key is named.

    digest: as hashlib names it, "" for the one that suits the key. program: for the prompt.
    leads_to_root: whether a root issued a certificate; if given, an incomplete chain is warned of.
    """

    now: datetime
    key: str = ""
    sender: str = ""
    opaque: bool = False
    pss: bool = False
    allow_expired: bool = False
    files: tuple[Certificate, ...] = ()
    program: str = ""
    digest: str = ""
    leads_to_root: Callable[[Certificate], bool] | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """A SignedData around (or, detached, beside) its content."""

    before: bytes
    after: bytes
    scheme: Scheme
    warnings: tuple[str, ...] = field(default=())

    def around(self, content: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the whole CMS message."""
        yield self.before
        yield from content
        yield self.after


def message(region: Region, out: Writer, keys: MailKeys, options: Options) -> tuple[str, ...]:
    """Sign an entity or a message and write the result; return what to warn the person of.

    Nothing is written before the signature is there. The message's own fields stay outside,
    Content-* goes into what is signed.
    """
    entity = mime.read(region)
    if entity.is_disputed:
        entity = mime.read(canonical.sendable(region))
    who = who_signs(entity, keys, options)

    def signature(content: Callable[[], Iterator[bytes]]) -> Signed:
        context = context_of(entity, options.program)
        return content_signature(lambda: canonical.crlf(content()), keys, who, options, context)

    # Most mails can stay as they are. Which do is found out while they are hashed.
    parts = inner_fields(entity), entity.body, entity.newline
    try:
        made = signature(lambda: canonical.unless_fragile(*parts))
        inner = canonical.as_it_is(*parts)
    except canonical.Fragile:
        entity = mime.read(canonical.sendable(entity.region))
        inner = canonical.prepare(inner_fields(entity), entity.body, entity.newline)
        made = signature(lambda: _chunks(inner))
    newline = entity.newline
    head = mime.raw(outer_fields(entity))
    out.write(canonical_head(head, newline) + b"MIME-Version: 1.0" + newline)
    if options.opaque:
        kind = b"application/pkcs7-mime; smime-type=signed-data"
        write_cms(out, kind, b"smime.p7m", made.around(canonical.crlf(_chunks(inner))), newline)
    else:
        plain = canonical.lf(_chunks(inner))
        _write_detached(out, made, plain, newline)
    return made.warnings


def _chunks(pieces: Iterable[Region]) -> Iterator[bytes]:
    return chain.from_iterable(piece.chunks() for piece in pieces)


def content_signature(
    content: Callable[[], Iterator[bytes]],
    keys: MailKeys,
    who: Identity,
    options: Options,
    context: Context,
) -> Signed:
    """Sign `content`, bytes as they will be verified."""
    pss = options.pss or _demands_pss(who)
    scheme = signed.best_scheme(who.key, pss=pss, digest=options.digest)
    found, length = digest.of(oids.digest_name(scheme), content())
    attributes = signed.attributes(found, scheme, who.certificate, options.now, gcm=keys.read_gcm())
    signature = keys.sign_attributes(who.key, scheme, attributes, context)
    info = signed.signer_info(who.certificate, scheme, attributes, signature)
    sent = identity.chain(who, options.files)
    before, after = signed.wrap(info, scheme, sent, length if options.opaque else None)
    missing = identity.incomplete(sent, options.leads_to_root) if options.leads_to_root else ""
    return Signed(before, after, scheme, (*who.warnings, *([missing] if missing else ())))


def who_signs(entity: Entity, keys: MailKeys, options: Options) -> Identity:
    """Return the key for a message: by name, by the sender given, or by its From."""
    every = keys.keys()
    if options.key or options.sender:
        return _find(every, options.key or options.sender, options)
    try:
        sender = address.own_addresses(entity.one("from"))
    except UsageError as error:
        raise NoSender(str(error)) from None
    if not sender:
        raise NoKey("the message has no From; say whose key signs with --key or --from")
    return _find(every, sender[0], options)


def signer_of(cms: Source) -> Certificate | None:
    """Return the certificate of the first signer of a SignedData, if the message holds it.

    Nothing is verified.
    """
    from hsmagent.mail.cms import signers

    return signers.named_signer(signers.read(cms))


def _find(every: Sequence[Key], wanted: str, options: Options) -> Identity:
    return identity.find(
        every, wanted, options.now, files=options.files, allow_expired=options.allow_expired
    )


def context_of(entity: Entity, program: str) -> Context:
    """Return what the prompt may tell of this message."""
    return Context(program, "".join(entity.all("from")[:1]), "".join(entity.all("subject")[:1]))


def outer_fields(entity: Entity) -> tuple[Field, ...]:
    """Return the fields that stay with the message: all but those that describe the content."""
    return tuple(field for field in entity.fields if not headers.is_content(field))


def inner_fields(entity: Entity) -> tuple[Field, ...]:
    """Return the fields that go into what is signed or encrypted; Content-Type at least."""
    inner = tuple(f for f in entity.fields if f.name.startswith("content-"))
    if not any(f.name == "content-type" for f in inner):
        kind = b"Content-Type: text/plain; charset=utf-8" + entity.newline
        inner = (Field("content-type", kind), *inner)
    return inner


def canonical_head(head: bytes, newline: bytes) -> bytes:
    """Give every line of a header the same ending."""
    return head.replace(b"\r\n", b"\n").replace(b"\n", newline)


def _demands_pss(who: Identity) -> bool:
    """Tell whether the key is for PSS alone: id-RSASSA-PSS in its certificate (RFC 4055)."""
    return public_key(who.certificate.spki)[0] == oids.ID_RSASSA_PSS


def write_cms(out: Writer, kind: bytes, name: bytes, cms: Iterable[bytes], newline: bytes) -> None:
    """Write a CMS message in base64, with the fields that say what it is. name: of a file."""
    lines = (
        b'Content-Type: %s; name="%s"' % (kind, name),
        b"Content-Transfer-Encoding: base64",
        b'Content-Disposition: attachment; filename="%s"' % name,
        b"",
        b"",
    )
    out.write(newline.join(lines))
    out.writelines(canonical.base64_lines(cms, newline))


def _write_detached(out: Writer, made: Signed, content: Iterator[bytes], newline: bytes) -> None:
    mark = b"----" + os.urandom(16).hex().upper().encode()
    head = (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";',
        b' micalg=%s; boundary="%s"' % (oids.micalg(made.scheme).encode(), mark),
        b"",
        b"This is a signed message (S/MIME).",
        b"",
        b"--" + mark,
        b"",
    )
    out.write(newline.join(head))
    plain = content if newline == b"\n" else (c.replace(b"\n", newline) for c in content)
    out.writelines(plain)
    out.write(newline + b"--" + mark + newline)
    write_cms(out, b"application/pkcs7-signature", b"smime.p7s", made.around(()), newline)
    out.write(newline + b"--" + mark + b"--" + newline)
