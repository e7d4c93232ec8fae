"""`hsmagent contacts …`: other people's certificates; `hsmagent roots …`: the roots for mail."""

from collections.abc import Callable, Iterable
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


def _command(work: Callable[[Given], None]) -> Callable[[Given], int]:
    """Make a command of what does the work: one that says on stderr what went wrong."""

    def command(given: Given) -> int:
        return reported(partial(work, given))

    return command


def _of_roots(given: Given) -> bool:
    return given.command.name.startswith("roots ")


@_command
def add(given: Given) -> None:
    """Take in certificates, or the signers of messages."""
    kept = store.default()
    for path in given.words:
        found = _intake(path)
        for certificate in found.certificates:
            kept.add(certificate)
        _say(found.certificates)
        _keep_lists(found, kept)
        if not found.certificates and not found.crls:
            _learn(path, given, kept)


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


@_command
def add_root(given: Given) -> None:
    """Take in roots."""
    kept = store.default()
    for path in given.words:
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


@_command
def show(given: Given) -> None:
    """Show the certificates or the roots that were taken in."""
    _say(entry.certificate for entry in store.default().entries(root=_of_roots(given)))


@_command
def remove(given: Given) -> None:
    """Remove certificates or roots by address or fingerprint."""
    Out().say(f"{store.default().remove(given.word, root=_of_roots(given))} removed")


def _say(found: Iterable[Certificate]) -> None:
    for certificate in found:
        addresses = printable(", ".join(certificate.addresses)) or "no address"
        until = f"{certificate.not_after:%Y-%m-%d}"
        Out().say(f"{certificate.fingerprint[:16]}  {until}  {addresses}  {certificate.name}")
