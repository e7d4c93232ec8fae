"""`decrypt`: a whole message in, the entity inside it with the message's own fields out."""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hsmagent.errors import UsageError
from hsmagent.mail import canonical, headers, layers, mime
from hsmagent.mail.cms import certificates, enveloped
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.cms.recipients import Nobody, Ours
from hsmagent.mail.keys import Context, MailKeys
from hsmagent.mail.mime import Entity, Field
from hsmagent.mail.sign import Writer, canonical_head, context_of, inner_fields, outer_fields
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.model import printable

if TYPE_CHECKING:
    from hsmagent.mail.report import Report
    from hsmagent.mail.verify import Findings, Judge

UNAUTHENTICATED = (
    "the encryption (CBC) does not show whether somebody changed the message on its way"
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to decrypt. files: certificates of ours that are not on the token.

    judge: if given, every further layer is taken off, too, and it judges the signatures.
    """

    files: tuple[Certificate, ...] = ()
    judge: "Judge | None" = None
    program: str = ""


@dataclass(frozen=True, slots=True)
class Decrypted:
    """What was inside. report: of the signatures, when a judge was given."""

    entity: Entity
    warnings: tuple[str, ...]
    report: "Report | None" = None


def message(region: Region, out: Writer, keys: MailKeys, options: Options) -> Decrypted:
    """Decrypt a message and write it; nothing is written before all of it is known to be whole.

    Raises Undecryptable, with the same sentence whatever was wrong with the ciphertext.
    """
    outer = mime.read(region)
    result = inside(outer, keys, options)
    result = replace(result, entity=mime.undisputed(result.entity))
    entity, newline = result.entity, outer.newline
    own = outer_fields(outer)
    if own:
        # A message's own fields win: a From inside must not replace the one that was delivered.
        kept = headers.restored(own, entity)
        result = _with_hidden(result, kept)
        head = mime.raw(kept) + b"MIME-Version: 1.0\n" + mime.raw(inner_fields(entity))
    else:
        head = mime.raw(entity.fields)
    out.write(canonical_head(head, newline) + newline)
    out.writelines(canonical.in_lines(entity, newline))
    return result


def _with_hidden(result: Decrypted, kept: tuple[Field, ...]) -> Decrypted:
    """Add a warning of the fields inside the encryption that the result does not show."""
    shown = {(field.name, field.value) for field in kept}
    hidden = [f for f in headers.inside(result.entity) if (f.name, f.value) not in shown]
    if not hidden:
        return result
    text = "; ".join(f"{field.name.title()}: {field.value}" for field in hidden)
    warning = f"inside stand fields that are not the message's own: {printable(text, 800)}"
    return replace(result, warnings=(*result.warnings, warning))


def inside(outer: Entity, keys: MailKeys, options: Options) -> Decrypted:
    """Return the entity inside an encrypted one."""
    layer = layers.find(outer)
    if layer is None or not (layer.is_encrypted or (layer.is_signed and options.judge)):
        raise UsageError("the message is not encrypted")
    context = context_of(outer, options.program)
    entity, warnings = outer, list[str]()
    if layer.is_encrypted:
        entity, more = content(layer.cms, keys, context, options)
        warnings += more
    if options.judge is None:
        return Decrypted(entity, tuple(warnings))
    from hsmagent.mail.verify import Findings

    found = Findings()
    entity = _peel(entity, keys, context, options, found, warnings)
    found.protected = headers.protected(entity)
    report = found.report(outer)
    return Decrypted(entity, () if report.ok else tuple(warnings), report)


def content(
    cms: Source, keys: MailKeys, context: Context, options: Options
) -> tuple[Entity, tuple[str, ...]]:
    """Return what a CMS message holds, whole and checked, and what to warn of."""
    plain = Spool(sealed=True)
    warnings = into(plain, cms, keys, context, options)
    return _entity(plain, authenticated=not warnings), warnings


def into(
    plain: Spool, cms: Source, keys: MailKeys, context: Context, options: Options
) -> tuple[str, ...]:
    """Decrypt what a CMS message holds into a spool, and return what to warn of.

    Raises Undecryptable: then the caller must throw away what was written.
    """
    message = enveloped.read(cms, _ours(keys, options.files))
    recipient, cipher = message.recipient, message.cipher
    if isinstance(recipient, Nobody):
        raise UsageError(recipient.why)
    key = keys.unwrap(recipient.key, recipient.what, cipher.key_length, context)
    plain.writelines(message.decrypt(key))
    return () if cipher.authenticated else (UNAUTHENTICATED,)


def _entity(plain: Spool, *, authenticated: bool) -> Entity:
    """Return the plaintext as an entity; text that has no header of its own gets one.

    A wrong key passes the padding check of CBC now and then: then the plaintext is neither an
    entity nor text, and this raises Undecryptable.
    """
    region = Region.whole(plain)
    try:
        entity = mime.read(region)
    except Malformed:
        entity = Entity((), region, region)
    if any(map(headers.is_content, entity.fields)) or (not entity.fields and entity.body != region):
        return entity
    if _is_text(region):
        return Entity((_TEXT,), region, region)
    if not authenticated:
        plain.close()
        raise Undecryptable
    return Entity(_OCTETS, region, region)


_TEXT = Field("content-type", b"Content-Type: text/plain; charset=utf-8\n")
_OCTETS = (
    Field("content-type", b"Content-Type: application/octet-stream\n"),
    Field("content-transfer-encoding", b"Content-Transfer-Encoding: binary\n"),
)
_CONTROLS = re.compile("[^\t\n\f\r -~\N{NO-BREAK SPACE}-\U0010ffff]")


def _is_text(region: Region) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in region.chunks():
            if _CONTROLS.search(decoder.decode(chunk)):
                return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _peel(  # noqa: PLR0917 (the last two collect what is found)
    entity: Entity,
    keys: MailKeys,
    context: Context,
    options: Options,
    found: "Findings",
    warnings: list[str],
) -> Entity:
    """Take off signatures and encryption in whatever order they come."""
    from hsmagent.mail import verify
    from hsmagent.mail.report import WHOLE

    judge = options.judge
    for _ in range(layers.MAX_LAYERS):
        try:
            layer = layers.find(entity, secret=True)
        except Malformed as error:
            found.remarks.append(verify.ODD.format(error))
            return entity
        if layer is None or judge is None:
            return entity
        if layer.is_encrypted:
            entity, more = content(layer.cms, keys, context, options)
            warnings += more
        elif layer.is_signed:
            inner = verify.peel(entity, judge, found, WHOLE)
            if inner is None:
                return entity
            entity = mime.read(inner)
        else:
            return entity
    raise Malformed(f"more than {layers.MAX_LAYERS} layers of signing and encryption")


def _ours(keys: MailKeys, files: Sequence[Certificate]) -> Ours:
    """Every key that can decrypt, with all its certificates: expired ones read old mail."""
    every = keys.keys()
    able = [key for key in every if key.opens]
    return certificates.of_keys(able, files)
