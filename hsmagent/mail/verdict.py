"""The verdict on a chain, in our own sentences: the library's errors, translated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import printable

NO_CHAIN = "no chain leads to a trusted root"
NO_ROOT = "there is no root to trust; `hsmagent roots add` takes one"
TOO_MANY = "more certificates name each other than are looked at"
NAMES = "an authority of the chain may not vouch for the names or addresses of {}"
UNREADABLE = "a certificate of the chain cannot be read"
NO_CRL = "there is no CRL"
_UNKNOWN = "the chain does not hold at the certificate of {}"

_INTERMEDIATE = re.compile(r"intermediate certificate (\d+)")
# The library tells its errors apart in words only.
_SENTENCES = (
    ("permitted namespace", NAMES),
    ("namespace of the issuing", NAMES),
    ("signature mechanism", "the certificate of {} is signed in a way that proves nothing (SHA-1)"),
    (
        "signature parameters",
        "the signature on the certificate of {} does not fit its issuer's key",
    ),
    ("signature of", "the signature on the certificate of {} is wrong"),
    ("issuer name", "the certificate of {} names another issuer"),
    ("valid set of policies", "no certificate policy holds along the chain of {}"),
    ("policy mapping", "the certificate of {} maps certificate policies that it must not"),
    ("policy graph", "the certificate policies in the chain of {} are too many"),
    ("critical extension", "the certificate of {} has a critical extension that is not known here"),
    ("maximum path length", "the chain of {} is longer than an authority in it allows"),
    ("not a CA", "{} issued a certificate, but is no CA"),
    ("not allowed to sign", "{} issued a certificate, which its own does not allow"),
)
_CRL_SENTENCES = (
    ("recent enough", "the CRL is out of date"),
    ("signature", "the CRL's signature is wrong"),
    ("not authorized", "whoever issued the CRL may not"),
    ("issuer certificate path", "the certificate that signed the CRL does not hold"),
    ("chain of trust", "the certificate that signed the CRL does not hold"),
    ("all revocation reasons", "the CRL is about some reasons only"),
    ("critical extension", "the CRL has a critical extension that is not known here"),
    ("Delta CRL", "a delta CRL is missing"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a chain. problem: why it does not hold, or "". remarks: what was not checked.

    revoked: a CRL revokes one of its certificates.
    """

    problem: str = ""
    remarks: tuple[str, ...] = ()
    revoked: bool = False


def of(error: Exception, path: Sequence[Certificate]) -> Verdict:
    """Return the verdict on a path, root first, that the library refused."""
    from pyhanko_certvalidator.errors import ExpiredError, NotYetValidError

    text = str(error)
    found = _INTERMEDIATE.search(text)
    at = int(found.group(1)) if found else 0 if "trust anchor" in text else len(path) - 1
    who = path[min(at, len(path) - 1)]
    if isinstance(error, ExpiredError):
        return Verdict(f"the certificate of {who.name} expired on {who.not_after:%Y-%m-%d}")
    if isinstance(error, NotYetValidError):
        return Verdict(
            f"the certificate of {who.name} is valid only from {who.not_before:%Y-%m-%d}"
        )
    sentence = next((ours for theirs, ours in _SENTENCES if theirs in text), _UNKNOWN)
    return Verdict(sentence.format(who.name))


def revoked(error: Any, certificate: Certificate) -> str:
    """Return the sentence on a certificate that a CRL names."""
    reason = printable(str(error.reason.human_friendly))
    reason = "" if "unspecified" in reason else f" ({reason})"
    when = f"{error.revocation_dt:%Y-%m-%d}"
    return f"the certificate of {certificate.name} was revoked on {when}{reason}"


def unusable_crl(error: Any) -> str:
    """Return why CRLs that are there decide nothing."""
    text = " ".join(map(str, getattr(error, "failures", ()))) or str(error)
    return next((ours for theirs, ours in _CRL_SENTENCES if theirs in text), "no CRL decides")


def unchecked(reasons: Mapping[str, Sequence[Certificate]]) -> tuple[str, ...]:
    """Return a sentence for each reason on the certificates whose revocation was not checked."""
    return tuple(
        f"revocation was not checked for {printable(', '.join(c.name for c in whom), 300)}: {why}"
        for why, whom in reasons.items()
    )
