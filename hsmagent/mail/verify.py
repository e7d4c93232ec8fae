"""`verify`: who signed which part of a message, and whether that is who the From says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hsmagent.errors import UsageError
from hsmagent.mail import address, canonical, headers, layers, mime, multipart
from hsmagent.mail.cms import signers
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.signers import Covered, SignedData, SignerInfo
from hsmagent.mail.layers import MAX_LAYERS, Layer
from hsmagent.mail.mime import Entity
from hsmagent.mail.report import SEALED, WHOLE, Report, Signature, Who, stamp
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.mail.trust import Anchors, Trust
from hsmagent.model import printable

_MAX_SEARCH = 200
_ENCRYPTED = "it is encrypted; `hsmagent smime decrypt --all` opens it and verifies what is inside"
ODD = "what is inside is odd, and programs may show it differently: {}"
_ONLY_PART, _UNSIGNED = "only a part of it is signed", "the message is not signed"
_SENT = "the signature is around the encryption: it shows who sent the mail, not who wrote it"
_DISPUTED = (
    "its header holds a bare CR or a NUL: programs may read other fields in it, and another From"
)


@dataclass(frozen=True, slots=True)
class Judge:
    """What signatures are judged by. known: more certificates that may help to find a chain.

    signers: if given, only these may be signers, whatever certificates a message brings.
    learned: told of each signer whose signature and chain hold, for the certificate store.
    """

    anchors: Anchors
    now: datetime
    known: tuple[Certificate, ...] = ()
    signers: tuple[Certificate, ...] | None = None
    learned: Callable[[Certificate, frozenset[str]], None] | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The report, and the innermost entity that the signatures cover (None without any)."""

    report: Report
    content: Region | None


@dataclass(slots=True)
class Findings:
    """What is found while layers are taken off a message; becomes its Report."""

    signatures: list[Signature] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    protected: tuple[tuple[str, str], ...] = ()

    def report(self, entity: Entity) -> Report:
        """Return the report on this message, with the From compared."""
        authors = [s for s in self.signatures if s.covers != SEALED]
        problems = list(self.problems)
        if self.signatures and not authors:
            sender, matches = _sender(entity, ())[0], None
            problems.append(_SENT)
        else:
            sender, matches = _sender(entity, authors)
        if matches is False and authors:
            problems += _mismatch(sender, authors)
        if entity.is_disputed:
            problems.append(_DISPUTED)
        remarks = (*self.remarks, *headers.differences(entity, self.protected))
        return Report(
            sender, matches, tuple(self.signatures), tuple(problems), self.protected, remarks
        )


def message(region: Region, judge: Judge) -> Verified:
    """Verify a message or entity. Malformed when it cannot be read at all."""
    entity = mime.read(region)
    found = Findings()
    content = peel(entity, judge, found, WHOLE)
    if content is None and not found.signatures:
        layer = layers.find(entity)
        if layer is not None and layer.is_encrypted:
            found.problems.append(_ENCRYPTED)
        else:
            _search(entity, judge, found, "part ", [_MAX_SEARCH])
            found.problems.append(_ONLY_PART if found.signatures else _UNSIGNED)
    return Verified(found.report(entity), content)


def peel(
    entity: Entity, judge: Judge, found: Findings, covers: str, depth: int = 0
) -> Region | None:
    """Take off every signed layer, add what was found, and return the innermost entity, or None."""
    layer = layers.find(entity, secret=True)
    if layer is None or not layer.is_signed:
        return None
    if depth >= MAX_LAYERS:
        raise Malformed(f"more than {MAX_LAYERS} layers of signing and encryption")
    data = signers.read(layer.cms)
    inner = _covered_region(layer, data)
    covered = Covered(inner.chunks)  # the octets that are there (RFC 5652, section 5.4)
    if layer.part is not None:
        covered = Covered(lambda: canonical.crlf(inner.chunks()))
    content, next_layer = _look_inside(inner, found)
    sealed = covers == WHOLE and next_layer is not None and next_layer.is_encrypted
    found.signatures += signatures(data, covered, judge, SEALED if sealed else covers)
    if content is None or next_layer is None:
        return inner
    deeper = peel(content, judge, found, covers, depth + 1)
    return inner if deeper is None else deeper


def _look_inside(inner: Region, found: Findings) -> tuple[Entity | None, Layer | None]:
    """Read what is signed. If it is malformed that is remarked; the signature may hold anyway."""
    try:
        content = mime.read(inner)
        found.protected = headers.protected(content)
        _ = content.content_type, content.encoding
    except Malformed as error:
        found.remarks.append(ODD.format(error))
        return None, None
    try:
        return content, layers.find(content, secret=True)
    except Malformed as error:
        found.problems.append(f"inside the signature is another one that cannot be read: {error}")
        return content, None


def detached(cms: Source, content: Covered, judge: Judge, covers: str) -> list[Signature]:
    """Check a SignedData over a content that is not in it."""
    data = signers.read(cms)
    if data.content is not None:
        raise Malformed("a detached signature that brings its own content")
    return signatures(data, content, judge, covers)


def _covered_region(layer: Layer, data: SignedData) -> Region:
    """Return what is signed."""
    if layer.part is not None:
        # With content of its own it would show one thing and sign another.
        if data.content is not None:
            raise Malformed("a multipart/signed whose signature brings its own content")
        return layer.part
    if data.content is None and not data.infos:
        raise UsageError(
            "the message brings certificates only, and no signature; `hsmagent contacts add` takes "
            "them"
        )
    if data.content is None:
        raise Malformed("a signature without the content that it covers")
    spool = Spool(sealed=True)
    spool.writelines(data.content.chunks())
    return Region.whole(spool)


def signatures(data: SignedData, content: Covered, judge: Judge, covers: str) -> list[Signature]:
    """Check every signature of a SignedData over `content`; there must be one at least."""
    if not data.infos:
        raise Malformed("a SignedData without any signature")
    pool = (*data.certificates, *judge.known, *(judge.signers or ()))
    trust = Trust(judge.anchors, judge.now, pool, data.crls)
    return [_signature(info, data, content, judge, trust, covers) for info in data.infos]


def _signature(  # noqa: PLR0917 (what one signature is judged by)
    info: SignerInfo, data: SignedData, content: Covered, judge: Judge, trust: Trust, covers: str
) -> Signature:
    pool = (*data.certificates, *judge.known) if judge.signers is None else judge.signers
    signer = signers.check(info, pool, content, data.unreadable)
    problem, remarks = signer.problem, [signer.remark] if signer.remark else []
    intact = not problem
    if signer.certificate and intact:
        chain = trust.judge(signer.certificate)
        problem = chain.problem
        remarks += chain.remarks
        if not problem and judge.learned:
            judge.learned(signer.certificate, signer.capabilities)
    return Signature(
        covers=covers,
        who=Who.of(signer.certificate) if signer.certificate else None,
        digest=signer.digest,
        signed_at=stamp(signer.signed_at) if signer.signed_at else "",
        intact=intact,
        trusted=intact and not problem,
        problem=problem,
        checked=signer.checked,
        remarks=tuple(remarks),
    )


def _search(entity: Entity, judge: Judge, found: Findings, where: str, budget: list[int]) -> None:
    """Look for signed parts inside an unsigned message (a list's footer around it)."""
    kind = entity.content_type.kind
    if not kind.startswith("multipart/") or kind in {"multipart/signed", "multipart/encrypted"}:
        return
    for number, region in enumerate(multipart.parts(entity), 1):
        budget[0] -= 1
        if budget[0] < 0 or where.count(".") >= MAX_LAYERS:
            return
        part = mime.read(region)
        if peel(part, judge, found, f"{where}{number}") is None:
            _search(part, judge, found, f"{where}{number}.", budget)


def _sender(entity: Entity, found: Sequence[Signature]) -> tuple[tuple[str, ...], bool | None]:
    """Compare every From mailbox, whole, with the addresses of those whose signature holds."""
    if entity.is_disputed:
        return (), False
    if all(map(headers.is_content, entity.fields)):
        return (), None
    try:
        sender = address.mailboxes(entity.one("from"))
    except UsageError:
        return (), False
    outer = [s for s in found if s.covers == WHOLE and s.ok and s.who]
    proven = {a for s in outer if s.who for a in s.who.addresses}
    return sender, bool(sender) and all(mailbox in proven for mailbox in sender)


def _mismatch(sender: tuple[str, ...], found: Sequence[Signature]) -> list[str]:
    """Return the problem that the From is not a signer's, unless a signature has that problem."""
    if not sender:
        return ["it has no From that can be read"]
    signer = {a for s in found if s.who for a in s.who.addresses}
    if all(mailbox in signer for mailbox in sender):
        return []
    named = "; ".join(s.who.text() for s in found if s.who)
    by = f"the signature names {named}" if named else "the signature does not tell whose it is"
    return [printable(f"the From is {', '.join(sender)}, but {by}", 800)]
