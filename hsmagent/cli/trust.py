"""The judge of signatures, made from options, settings and the store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from hsmagent.mail import roots, store
from hsmagent.mail.trust import Anchors, Revocation
from hsmagent.mail.verify import Judge


def judge(
    files: Sequence[str] = (),
    crls: Sequence[str] = (),
    *,
    at: datetime | None = None,
    required: Revocation = Revocation.AT_HAND,
    also_own: bool = False,
) -> Judge:
    """Return a judge that trusts the roots in these files; without files, the roots for mail.

    crls: files of revocation lists. also_own: the roots of the store count beside those in files.
    """
    kept = store.default()
    given = [roots.read_anchors(path) for path in files]
    named = tuple(one for certificates, _ in given for one in certificates)
    lists = [one for _, found in given for one in found]
    lists += [one for path in crls for one in roots.read_crl_file(path)]
    bundle = None if named else _system()
    if also_own or not named:
        named = (*named, *kept.certificates(root=True))
    return Judge(
        Anchors(named, (*lists, *kept.crls()), required, bundle),
        at or datetime.now(UTC),
        known=tuple(entry.certificate for entry in kept.entries()),
    )


def _system() -> roots.Bundle | None:
    """Return the system's roots, unless the configuration says that only the store's count."""
    # Imported here: whoever names the roots need not wait for this.
    from hsmagent.config import file as config
    from hsmagent.config.mail import Roots

    settings = config.load(config.default_path()).mail
    return None if settings.roots is Roots.OWN else roots.Bundle()
