"""What signatures are measured by, put together from options, settings and the store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from hsmagent.mail import store, trust
from hsmagent.mail.cms import certificates
from hsmagent.mail.verify import Judge


def judge(
    roots: Sequence[str] = (),
    crls: Sequence[str] = (),
    *,
    at: datetime | None = None,
    require_crl: bool = False,
) -> Judge:
    """Return a judge by the roots in these files, or the system's and those in the store."""
    kept = store.default()
    given = tuple(c for path in roots for c in certificates.read_file(path))
    return Judge(
        trust.Anchors(
            given or (*trust.system_roots(), *kept.roots()),
            tuple(trust.read_crl(path) for path in crls),
            required=require_crl,
        ),
        at or datetime.now(UTC),
        known=tuple(entry.certificate for entry in kept.entries()),
    )
