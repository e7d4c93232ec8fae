"""NIST's PKITS: a signed mail for each way in which a chain of certificates can be wrong."""

from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest

from hsmagent.mail import verify
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.spool import Memory, Region
from hsmagent.mail.trust import Anchors, Revocation
from hsmagent.mail.verify import Judge

DATA = Path(cryptography_vectors.__file__).parent / "x509/PKITS_data"
MAILS = sorted((DATA / "smime").glob("*.eml"))
WHEN = datetime(2026, 6, 1, tzinfo=UTC)  # they expire in 2030

# Their names do not say it, but the suite wants them refused: no policy is left, or no CRL.
ALSO_INVALID = {
    "SignedMissingCRLTest1",
    *(f"SignedDifferentPoliciesTest{number}" for number in (4, 5, 7, 8, 9, 12)),
}
REFUSED = {
    "SignedValidDSASignaturesTest4": "signed with DSA and SHA-1, which nobody does any more",
    "SignedValidDSAParameterInheritanceTest5": "signed with DSA and SHA-1",
}


@pytest.mark.parametrize("mail", MAILS, ids=lambda path: path.stem)
def test_pkits(mail: Path) -> None:
    root = Certificate((DATA / "certs/TrustAnchorRootCertificate.crt").read_bytes())
    judge = Judge(Anchors((root,), required=Revocation.ALL), WHEN)
    found = verify.message(Region.whole(Memory(mail.read_bytes())), judge).report
    [signature] = found.signatures
    valid = "Invalid" not in mail.stem and mail.stem not in ALSO_INVALID | REFUSED.keys()
    assert signature.ok is valid, signature.problem
    assert valid or signature.problem


NOT_CHECKED = "revocation was not checked"


@pytest.mark.parametrize("mail", MAILS, ids=lambda path: path.stem)
def test_pkits_where_no_crl_is_demanded(mail: Path) -> None:
    """What is accepted only because a CRL decides nothing is accepted with that reason."""
    root = Certificate((DATA / "certs/TrustAnchorRootCertificate.crt").read_bytes())
    found = verify.message(
        Region.whole(Memory(mail.read_bytes())), Judge(Anchors((root,)), WHEN)
    ).report
    [signature] = found.signatures
    valid = "Invalid" not in mail.stem and mail.stem not in ALSO_INVALID | REFUSED.keys()
    unchecked = [remark for remark in signature.remarks if NOT_CHECKED in remark]
    assert signature.ok or not valid, signature.problem
    if not valid and signature.ok:
        assert unchecked
    elif "evoked" in mail.stem and not valid:
        assert "was revoked" in signature.problem
    assert not (valid and unchecked)


def test_all_of_them_are_here() -> None:
    assert len(MAILS) == 224
    assert sum("Invalid" in mail.stem for mail in MAILS) == 114
