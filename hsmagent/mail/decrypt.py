"""`decrypt`: a whole message in, the entity inside it with the message's own fields out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hsmagent.errors import UsageError
from hsmagent.mail import canonical, layers, mime, verify
from hsmagent.mail.cms import certificates, enveloped
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.cms.recipients import Ours
from hsmagent.mail.keys import Context, MailKeys
from hsmagent.mail.mime import Entity
from hsmagent.mail.report import Report, Signature
from hsmagent.mail.sign import Writer, canonical_head, context_of, inner_fields, outer_fields
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.mail.verify import Judge

UNAUTHENTICATED = (
    "the encryption (CBC) does not show whether somebody changed the message on its way"
)


@dataclass(frozen=True, slots=True)
class Options:
    """How to decrypt. files: certificates of ours that are not on the token.

    judge: given, every further layer is taken off too, and its signatures are checked by it.
    """

    files: tuple[Certificate, ...] = ()
    judge: Judge | None = None
    program: str = ""


@dataclass(frozen=True, slots=True)
class Decrypted:
    """What was inside. report: of the signatures, when a judge was given."""

    entity: Entity
    warnings: tuple[str, ...]
    report: Report | None = None


@dataclass(slots=True)
class _Peeling:
    """What was found while layers were taken off."""

    signatures: list[Signature] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def message(region: Region, out: Writer, keys: MailKeys, options: Options) -> Decrypted:
    """Decrypt a message and write it; nothing is written before all of it is known to be whole.

    Raises Undecryptable, with the same sentence whatever was wrong with the ciphertext.
    """
    outer = mime.read(region)
    result = inside(outer, keys, options)
    newline = outer.newline
    head = b"".join(field.raw for field in outer_fields(outer))
    head += b"MIME-Version: 1.0\n" if head else b""
    # A message's own fields win: a From inside must not replace the one that was delivered.
    fields = inner_fields(result.entity) if head else result.entity.fields
    head += b"".join(field.raw for field in fields)
    out.write(canonical_head(head, newline) + newline)
    body = canonical.lf(result.entity.body.chunks())
    for chunk in body:
        out.write(chunk if newline == b"\n" else chunk.replace(b"\n", newline))
    return result


def inside(outer: Entity, keys: MailKeys, options: Options) -> Decrypted:
    """Return the entity inside an encrypted one."""
    layer = layers.find(outer)
    if layer is None or not (layer.is_encrypted or (layer.is_signed and options.judge)):
        raise UsageError("the message is not encrypted")
    context = context_of(outer, options.program)
    found = _Peeling()
    if layer.is_encrypted:
        entity = mime.read(_decrypted(layer.cms, keys, context, options, found))
    else:
        entity = outer
    if options.judge is None:
        return Decrypted(entity, tuple(found.warnings))
    entity = _peel(entity, keys, context, options, found)
    report = verify.report_on(outer, found.signatures)
    warnings = () if report.ok else tuple(found.warnings)
    return Decrypted(entity, warnings, report)


def content(
    cms: Source, keys: MailKeys, context: Context, options: Options
) -> tuple[Spool, tuple[str, ...]]:
    """Return the plaintext of a CMS message, whole and checked, and what to warn of."""
    ours = _ours(keys, options.files)
    message = enveloped.read(cms, ours)
    if message.recipient is None:
        raise UsageError("the message is not encrypted for any of your keys")
    recipient, cipher = message.recipient, message.cipher
    key = keys.unwrap(recipient.key, recipient.what, cipher.key_length, context)
    plain = Spool(sealed=True)
    for chunk in message.decrypt(key):
        plain.write(chunk)
    _check_entity(plain)
    return plain, () if cipher.authenticated else (UNAUTHENTICATED,)


def _decrypted(
    cms: Source, keys: MailKeys, context: Context, options: Options, found: _Peeling
) -> Region:
    plain, warnings = content(cms, keys, context, options)
    found.warnings += warnings
    return Region.whole(plain)


def _check_entity(plain: Spool) -> None:
    """Random keys pass the padding check of CBC now and then: what comes out is no entity."""
    try:
        mime.read(Region.whole(plain))
    except Malformed:
        plain.close()
        raise Undecryptable from None


def _peel(
    entity: Entity, keys: MailKeys, context: Context, options: Options, found: _Peeling
) -> Entity:
    """Take off signatures and encryption in whatever order they come."""
    judge = options.judge
    for _ in range(layers.MAX_LAYERS):
        layer = layers.find(entity, secret=True)
        if layer is None or judge is None:
            return entity
        if layer.is_encrypted:
            entity = mime.read(_decrypted(layer.cms, keys, context, options, found))
        elif layer.is_signed:
            inner = verify.peel(entity, judge, found.signatures, verify.WHOLE)
            if inner is None:
                return entity
            entity = mime.read(inner)
        else:
            return entity
    raise Malformed(f"more than {layers.MAX_LAYERS} layers of signing and encryption")


def _ours(keys: MailKeys, files: Sequence[Certificate]) -> Ours:
    """Every key that can decrypt, with all its certificates: expired ones read old mail."""
    every = keys.keys()
    return [
        (key, certificate)
        for key in every
        if key.can_decrypt or key.can_derive
        for certificate in certificates.of_key(key, files)
    ]
