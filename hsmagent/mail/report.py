"""What `verify` found, for a person and for a program."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha1

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import printable


@dataclass(frozen=True, slots=True)
class Who:
    """The signer's certificate."""

    name: str
    addresses: tuple[str, ...]
    issuer: str
    serial: str
    fingerprint: str
    fingerprint_sha1: str
    not_after: str

    @classmethod
    def of(cls, certificate: Certificate) -> "Who":
        """Describe a certificate."""
        return cls(
            name=certificate.name,
            addresses=certificate.addresses,
            issuer=certificate.issuer_name,
            serial=f"{certificate.serial:x}",
            fingerprint=certificate.fingerprint,
            fingerprint_sha1=sha1(certificate.der).hexdigest().upper(),  # noqa: S324 - a name
            not_after=stamp(certificate.not_after),
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. `covers` says which part; `problem` is "" when signature and chain hold."""

    covers: str
    who: Who | None
    digest: str
    signed_at: str
    intact: bool
    trusted: bool
    problem: str

    @property
    def ok(self) -> bool:
        """Signature and chain hold."""
        return self.intact and self.trusted

    def text(self) -> str:
        """One or two lines for a person."""
        by = "an unknown signer"
        if self.who:
            by = self.who.name + "".join(f" <{printable(a)}>" for a in self.who.addresses)
        at = f" at {self.signed_at}" if self.signed_at else ""
        head = "Good signature" if self.ok else "Signature of unproven origin"
        head = head if self.intact else "BAD signature"
        line = f"{head} by {by}{at}, over {self.covers}"
        if self.who:
            line += f"\n  issued by {self.who.issuer}"
        return line + (f"\n  {self.problem}" if self.problem else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found; `ok` only if everything holds.

    sender: the From mailboxes; sender_matches: each of them is an address of a signer whose
    signature holds, None when there was no From to compare; problems: what else is wrong.
    """

    sender: tuple[str, ...] = ()
    sender_matches: bool | None = None
    signatures: tuple[Signature, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether the message is what it claims to be."""
        return (
            bool(self.signatures)
            and all(signature.ok for signature in self.signatures)
            and self.sender_matches is not False
            and not self.problems
        )

    def text(self) -> str:
        """Lines for a person."""
        lines = [signature.text() for signature in self.signatures]
        if self.sender_matches:
            lines.append(f"The mail is from the signer: {printable(', '.join(self.sender), 400)}")
        lines += [f"Problem: {problem}" for problem in self.problems]
        return "\n".join((*lines, "Verification " + ("successful" if self.ok else "failed")))

    def json(self) -> str:
        """One JSON object; documented in docs/mail.md."""
        value = {"ok": self.ok, **asdict(self)}
        for signature, raw in zip(value["signatures"], self.signatures, strict=True):
            signature["ok"] = raw.ok
        return json.dumps(value, indent=2, ensure_ascii=False)


def stamp(moment: datetime) -> str:
    """Return a moment in UTC, ISO 8601 with seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
