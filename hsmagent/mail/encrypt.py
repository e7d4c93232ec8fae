"""`encrypt`: a message in, the same message for its recipients alone out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.mail import address, canonical, mime
from hsmagent.mail.cms import enveloped, oids, public_keys
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.mime import Entity
from hsmagent.mail.sign import Writer, canonical_head, inner_fields, outer_fields, write_cms
from hsmagent.mail.spool import Memory, Region
from hsmagent.mail.store import Entry, Store
from hsmagent.model import printable

MAX_RECIPIENTS = 1000
LEFT_OUT = "those in Bcc are left out: give each a message of their own, with --to"
_AUTHENTICATED = frozenset(oids.AES_GCM)


def _nobody(_: str) -> Entry | None:
    return None


@dataclass(frozen=True, slots=True)
class Options:
    """How to encrypt.

    to: addresses, instead of those in To and Cc. given: certificates, besides those found by
    address. own: certificates for our own copy. find_own: returns our own certificate for an
    address that the store does not know. gcm: None lets the recipients' capabilities decide. oaep:
    RSA-OAEP instead of PKCS #1 v1.5.
    """

    now: datetime
    to: tuple[str, ...] = ()
    given: tuple[Entry, ...] = ()
    own: tuple[Entry, ...] = ()
    find_own: Callable[[str], Entry | None] = _nobody
    gcm: bool | None = None
    oaep: bool = False


class NoCertificate(HsmAgentError):
    """There is no certificate for `addresses`."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        super().__init__(
            f"there is no valid certificate for {printable(', '.join(addresses), 400)}; "
            "`hsmagent contacts add` takes one, or a signed mail from them"
        )


def message(region: Region, out: Writer, store: Store, options: Options) -> tuple[str, ...]:
    """Encrypt a message and write it; return what to warn the person of.

    The Bcc field is left out, and the message is not encrypted for those in it, since it names whom
    it is encrypted for: each of them needs a message of their own. Raises NoCertificate, naming
    everybody who has no certificate.
    """
    entity = mime.undisputed(mime.read(region))
    if not canonical.is_binary(entity):
        entity = mime.read(canonical.sendable(region))
    everybody = recipients(entity, store, options)
    newline = entity.newline
    gcm = authenticated(everybody, options)
    plain = _plaintext(entity)
    certificates = [entry.certificate for entry in everybody]
    made = enveloped.build(plain, certificates, gcm=gcm, oaep=options.oaep)
    kept = (f for f in outer_fields(entity) if f.name not in {"bcc", "resent-bcc"})
    out.write(canonical_head(mime.raw(kept) + b"MIME-Version: 1.0\n", newline))
    kind = b"application/pkcs7-mime; smime-type="
    kind += b"authEnveloped-data" if gcm else b"enveloped-data"
    write_cms(out, kind, b"smime.p7m", made, newline)
    left_out = (LEFT_OUT,) if entity.all("bcc") and not options.to else ()
    return (*weak(certificates), *left_out)


def authenticated(everybody: Sequence[Entry], options: Options) -> bool:
    """Tell whether to encrypt in GCM: when told so, else when everybody is known to read it."""
    if options.gcm is not None:
        return options.gcm
    return all(entry.capabilities & _AUTHENTICATED for entry in everybody)


def weak(certificates: Sequence[Certificate]) -> list[str]:
    """Return a sentence for each certificate whose key is weak."""
    found = ((c.name, public_keys.weakness(public_keys.load(c.spki))) for c in certificates)
    return [f"{name}: {weakness}" for name, weakness in found if weakness]


def _plaintext(entity: Entity) -> Callable[[], Iterator[bytes]]:
    """Return what is encrypted: lines end in CRLF, octets stay as they are."""
    fields, newline = inner_fields(entity), entity.newline
    if entity.encoding == "binary" and not entity.content_type.kind.startswith("multipart/"):
        head = canonical_head(mime.raw(fields) + newline, b"\r\n")
        return lambda: chain((head,), entity.body.chunks())
    if canonical.is_binary(entity):
        inner = canonical.prepare(fields, entity.body, newline)
    else:
        inner = [Region.whole(Memory(mime.raw(fields) + newline)), entity.body]
    return lambda: canonical.crlf(chain.from_iterable(piece.chunks() for piece in inner))


def recipients(entity: Entity, store: Store, options: Options) -> list[Entry]:
    """Return the certificate of everybody whom a message is for, each once, ours first."""
    wanted = options.to if options.given else options.to or addressees(entity)
    if not wanted and not options.given:
        raise UsageError("nobody to encrypt to: no To or Cc, and no --recipient or --to")
    return for_addresses(wanted, store, options)


def for_addresses(wanted: Sequence[str], store: Store, options: Options) -> list[Entry]:
    """Return the certificates for these addresses, those given and our own, each once."""
    found = {one: store.find(one, options.now) for one in wanted}
    for entry in options.given:
        named = set(map(address.folded, entry.certificate.addresses))
        found.update(dict.fromkeys((a for a in found if address.folded(a) in named), entry))
    for one in [one for one, entry in found.items() if entry is None]:
        found[one] = options.find_own(one)
    missing = [one for one, entry in found.items() if entry is None]
    if missing:
        raise NoCertificate(missing)
    entries = (*options.own, *options.given, *(e for e in found.values() if e))
    once = list({entry.certificate: entry for entry in entries}.values())
    if len(once) > MAX_RECIPIENTS:
        raise UsageError(f"{len(once)} recipients; {MAX_RECIPIENTS} are allowed")
    return once


def addressees(entity: Entity, names: Iterable[str] = ("to", "cc")) -> tuple[str, ...]:
    """Return the addresses in these fields."""
    fields = [value for name in names for value in entity.all(name)]
    return tuple(dict.fromkeys(a for value in fields for a in address.mailboxes(value)))


def own_entry(entity: Entity, store: Store, sender: str, now: datetime) -> Entry | None:
    """Return our own certificate from the store, for the sender given or the From."""
    names = address.own_addresses(sender or entity.one("from"))
    return next((entry for name in names if (entry := store.find(name, now))), None)
