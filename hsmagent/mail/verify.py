"""`verify`: who signed which part of a message, and whether that is who the From says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hsmagent.errors import UsageError
from hsmagent.mail import address, canonical, layers, mime, multipart, trust
from hsmagent.mail.cms import signers
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.signers import Covered, SignedData
from hsmagent.mail.layers import MAX_LAYERS, Layer
from hsmagent.mail.mime import Entity
from hsmagent.mail.report import Report, Signature, Who, stamp
from hsmagent.mail.spool import Region, Source, Spool
from hsmagent.mail.trust import Anchors
from hsmagent.model import printable

WHOLE = "the whole body"
_MAX_SEARCH = 200


@dataclass(frozen=True, slots=True)
class Judge:
    """What a signature is measured by. known: more certificates that may help to find a chain.

    learned: told of each signer whose signature and chain hold, for the certificate store.
    """

    anchors: Anchors
    now: datetime
    known: tuple[Certificate, ...] = ()
    learned: Callable[[Certificate, frozenset[str]], None] | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """The report, and the innermost entity that the signatures cover (None without any)."""

    report: Report
    content: Region | None


def message(region: Region, judge: Judge) -> Verified:
    """Verify a message or entity. Malformed when it cannot be read at all."""
    entity = mime.read(region)
    found: list[Signature] = []
    problems: list[str] = []
    content = peel(entity, judge, found, WHOLE)
    if content is None and not found:
        _search(entity, judge, found, "part ", [_MAX_SEARCH])
        problems.append("only a part of it is signed" if found else "the message is not signed")
    return Verified(report_on(entity, found, problems), content)


def report_on(entity: Entity, found: list[Signature], problems: Sequence[str] = ()) -> Report:
    """Return the report on these signatures in this message, with the From compared."""
    sender, matches = _sender(entity, found)
    mismatch = [_mismatch(sender, found)] if matches is False and found else []
    return Report(sender, matches, tuple(found), (*problems, *mismatch))


def peel(
    entity: Entity, judge: Judge, found: list[Signature], covers: str, depth: int = 0
) -> Region | None:
    """Take off every signed layer and add what was found; the innermost entity, or None."""
    layer = layers.find(entity, secret=True)
    if layer is None or not layer.is_signed:
        return None
    if depth >= MAX_LAYERS:
        raise Malformed(f"more than {MAX_LAYERS} layers of signing and encryption")
    data = signers.read(layer.cms)
    inner = _covered_region(layer, data)
    found += signatures(data, Covered(lambda: canonical.crlf(inner.chunks())), judge, covers)
    deeper = peel(mime.read(inner), judge, found, covers, depth + 1)
    return inner if deeper is None else deeper


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
    if data.content is None:
        raise Malformed("a signature without the content that it covers")
    spool = Spool(sealed=True)
    for chunk in data.content.chunks():
        spool.write(chunk)
    return Region.whole(spool)


def signatures(data: SignedData, content: Covered, judge: Judge, covers: str) -> list[Signature]:
    """Check every signature of a SignedData over `content`; there must be one at least."""
    if not data.infos:
        raise Malformed("a SignedData without any signature")
    pool = (*data.certificates, *judge.known)
    found = []
    for info in data.infos:
        signer = signers.check(info, pool, content)
        problem = signer.problem
        intact = not problem
        if signer.certificate and intact:
            problem = trust.judge(
                signer.certificate, pool, _with_crls(judge.anchors, data.crls), judge.now
            )
            if not problem and judge.learned:
                judge.learned(signer.certificate, signer.capabilities)
        found.append(
            Signature(
                covers=covers,
                who=Who.of(signer.certificate) if signer.certificate else None,
                digest=signer.digest,
                signed_at=stamp(signer.signed_at) if signer.signed_at else "",
                intact=intact,
                trusted=intact and not problem,
                problem=problem,
            )
        )
    return found


def _with_crls(anchors: Anchors, crls: Sequence[bytes]) -> Anchors:
    return Anchors(anchors.roots, (*anchors.crls, *crls), anchors.required)


def _search(
    entity: Entity, judge: Judge, found: list[Signature], where: str, budget: list[int]
) -> None:
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


def _sender(entity: Entity, found: list[Signature]) -> tuple[tuple[str, ...], bool | None]:
    """Compare every From mailbox, whole, with the addresses of those whose signature holds."""
    if all(
        field.name.startswith("content-") or field.name == "mime-version" for field in entity.fields
    ):
        return (), None
    try:
        sender = address.mailboxes(entity.one("from"))
    except UsageError:
        return (), False
    outer = [s for s in found if s.covers == WHOLE and s.ok and s.who]
    proven = {a for s in outer if s.who for a in s.who.addresses}
    return sender, bool(sender) and all(mailbox in proven for mailbox in sender)


def _mismatch(sender: tuple[str, ...], found: list[Signature]) -> str:
    if not sender:
        return "it has no From that can be read"
    signer = ", ".join(a for s in found if s.who for a in s.who.addresses) or "nobody"
    return printable(f"From is {', '.join(sender)}, but it was signed by {signer}", 800)
