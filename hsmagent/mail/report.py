"""What `verify` found, for a person and for a program."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha1

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import printable

# What a signature may cover, besides "part 1.2".
WHOLE = "the whole body"
SEALED = "the encrypted body"


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
    key_type: str

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
            key_type=certificate.key_type,
        )

    def text(self) -> str:
        """Name and addresses."""
        return printable(self.name + "".join(f" <{a}>" for a in self.addresses), 400)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. covers: which part. problem: "" when signature and chain hold.

    intact: the signature holds. trusted: the chain holds, too. checked: the signature could be
    checked at all. remarks: what else a person should know.
    """

    covers: str
    who: Who | None
    digest: str
    signed_at: str
    intact: bool
    trusted: bool
    problem: str
    checked: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Signature and chain hold."""
        return self.intact and self.trusted

    def text(self) -> str:
        """One line for a person, and those that explain it."""
        by = self.who.text() if self.who else "an unknown signer"
        at = f" at {self.signed_at}" if self.signed_at else ""
        lines = [f"{self._head()} by {by}{at}, over {self.covers}"]
        lines += [f"issued by {self.who.issuer}"] if self.who else []
        lines += [line for line in (self.problem, *self.remarks) if line]
        return "\n  ".join(lines)

    def _head(self) -> str:
        if self.ok:
            return "Good signature"
        if self.intact:
            return "Signature of unproven origin"
        return "BAD signature" if self.checked else "Signature that was not checked"


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found; `ok` only if everything holds.

    sender: the From mailboxes. sender_matches: each of them is an address of a signer of the
    content whose signature holds; None when there was nothing to compare. problems: what else is
    wrong. protected: header fields that were signed or encrypted with the body. remarks: what else
    a person should know.
    """

    sender: tuple[str, ...] = ()
    sender_matches: bool | None = None
    signatures: tuple[Signature, ...] = ()
    problems: tuple[str, ...] = ()
    protected: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

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
        lines += [f"Protected {name}: {printable(value, 400)}" for name, value in self.protected]
        lines += [f"Note: {remark}" for remark in self.remarks]
        lines += [f"Problem: {problem}" for problem in self.problems]
        if self.signatures:
            lines.append("Verification " + ("successful" if self.ok else "failed"))
        else:
            lines.append("Nothing was verified: there is no signature")
        return "\n".join(lines)

    def json(self) -> str:
        """One JSON object; documented in docs/mail.md."""
        import json

        value = {"ok": self.ok, **asdict(self)}
        for signature, raw in zip(value["signatures"], self.signatures, strict=True):
            signature["ok"] = raw.ok
        return json.dumps(value, indent=2, ensure_ascii=False)


def stamp(moment: datetime) -> str:
    """Return a moment in UTC, ISO 8601 with seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
