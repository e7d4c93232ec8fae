"""`hsmagent contacts …`: other people's certificates; `hsmagent roots …`: the roots for mail."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from hsmagent.cli.arguments import Given
from hsmagent.cli.smime import judge_of, reported
from hsmagent.errors import UsageError
from hsmagent.mail import intake, purpose, store
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.intake import Intake
from hsmagent.mail.spool import Region
from hsmagent.mail.stdio import Out, read
from hsmagent.model import printable


def add(given: Given) -> int:
    """Take in certificates, or the signers of messages."""
    return reported(partial(_add, given))


def add_root(given: Given) -> int:
    """Take in roots."""
    return reported(partial(_add_roots, given.words))


def show(_: Given) -> int:
    """Show the certificates that were taken in."""
    return reported(partial(_show, root=False))


def show_roots(_: Given) -> int:
    """Show the roots that were taken in."""
    return reported(partial(_show, root=True))


def remove(given: Given) -> int:
    """Remove certificates by address or fingerprint."""
    return reported(partial(_remove, given.word, root=False))


def remove_root(given: Given) -> int:
    """Remove roots by address or fingerprint."""
    return reported(partial(_remove, given.word, root=True))


def _add(given: Given) -> int:
    kept = store.default()
    for path in given.words:
        found = _intake(path)
        for certificate in found.certificates:
            kept.add(certificate)
        _say(found.certificates)
        _keep_lists(found, kept)
        if not found.certificates and not found.crls:
            _learn(path, given, kept)
    return 0


def _learn(path: str, given: Given, kept: store.Store) -> None:
    """Take in the signers of a message, with the ciphers that they say they can read."""
    from hsmagent.mail import verify

    def learned(certificate: Certificate, capabilities: frozenset[str]) -> None:
        kept.add(certificate, capabilities)
        _say([certificate])

    with read(path) as spool:
        judge = replace(judge_of(given), learned=learned)
        report = verify.message(Region.whole(spool), judge).report
    if not any(signature.ok for signature in report.signatures):
        raise UsageError(f"{path} is neither a certificate nor a message whose signature holds")


def _add_roots(paths: Iterable[str]) -> int:
    kept = store.default()
    for path in paths:
        found = _intake(path)
        if not found.certificates and not found.crls:
            raise UsageError(f"{path} holds no certificate")
        for certificate in found.certificates:
            if not purpose.is_authority(certificate):
                raise UsageError(
                    f"{path}: the certificate of {certificate.name} is no authority's (CA:FALSE), "
                    "so it is no root; `hsmagent contacts add` takes it"
                )
        for certificate in found.certificates:
            kept.add(certificate, root=True)
        _say(found.certificates)
        _keep_lists(found, kept)
    return 0


def _intake(path: str) -> Intake:
    with read(path) as spool:
        try:
            return intake.read(spool.read_at(0, spool.size))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None


def _keep_lists(found: Intake, kept: store.Store) -> None:
    for one in found.crls:
        kept.add_crl(one)
        Out().say(f"a list of revoked certificates of {len(one)} bytes")


def _show(*, root: bool) -> int:
    _say(entry.certificate for entry in store.default().entries(root=root))
    return 0


def _remove(wanted: str, *, root: bool) -> int:
    Out().say(f"{store.default().remove(wanted, root=root)} removed")
    return 0


def _say(found: Iterable[Certificate]) -> None:
    for certificate in found:
        addresses = printable(", ".join(certificate.addresses)) or "no address"
        until = f"{certificate.not_after:%Y-%m-%d}"
        Out().say(f"{certificate.fingerprint[:16]}  {until}  {addresses}  {certificate.name}")
