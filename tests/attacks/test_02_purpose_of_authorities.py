"""A CA that is not for mail, or a root with limits of its own, issues a mail certificate."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsmagent.cli import trust
from hsmagent.mail import roots, sign, verify
from hsmagent.mail.cms import names
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.spool import Spool
from hsmagent.mail.store import Store
from hsmagent.mail.trust import Anchors, Trust
from hsmagent.mail.verify import Judge
from tests.parts.mail.people import region
from tests.parts.mail.pki import NOW, Authority, Person, SoftwareKeys, authority

MAIL = b"From: alice@example.org\nContent-Type: text/plain\n\nPay Mallory.\n"
TLS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
FOR_MAIL = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])


def constraint(*permitted: str, excluded: Sequence[str] = ()) -> x509.NameConstraints:
    names_of = [[x509.RFC822Name(base) for base in bases] for bases in (permitted, excluded)]
    return x509.NameConstraints(names_of[0] or None, names_of[1] or None)


def problem(root: Authority, who: Person, *between: Authority) -> str:
    """Sign with this person's key and return why the mail's signature does not hold."""
    out = Spool()
    files = tuple(Certificate(one.der) for one in between)
    options = sign.Options(NOW, key=who.label, files=files)
    sign.message(region(MAIL), out, SoftwareKeys([who]), options)
    judge = Judge(Anchors((Certificate(root.der),)), NOW, known=files)
    [signature] = verify.message(region(out.read_at(0, out.size)), judge).report.signatures
    assert signature.intact
    assert signature.ok is (signature.problem == "")
    return signature.problem


def direct(**options: object) -> str:
    root = authority(**options)  # type: ignore[arg-type]
    return problem(root, root.issue())


def below(**options: object) -> str:
    root = authority()
    ca = root.authority("Sub", **options)
    return problem(root, ca.issue(), ca)


LIMITS = [
    ({"more": [TLS]}, "TLS servers, not for mail"),
    ({"more": [constraint("example.com")]}, "may not vouch"),
    ({"more": [constraint(excluded=["example.org"])]}, "may not vouch"),
    ({"end": NOW - timedelta(days=1)}, "expired on"),
]


@pytest.mark.parametrize(("options", "why"), LIMITS)
@pytest.mark.parametrize("where", [direct, below])
def test_it_is_refused(where: Callable[..., str], options: dict[str, object], why: str) -> None:
    assert where() == ""
    assert why in where(**options)


def test_a_path_longer_than_the_root_or_a_ca_allows_is_refused() -> None:
    root = authority(length=0)
    assert problem(root, root.issue()) == ""
    ca = root.authority("Sub")
    assert "longer than" in problem(root, ca.issue(), ca)
    root = authority()
    ca = root.authority("Sub", length=0)
    deeper = ca.authority("Deeper")
    assert "longer than" in problem(root, deeper.issue(), ca, deeper)


def test_authorities_for_mail_and_constraints_that_fit_hold() -> None:
    assert direct(more=[FOR_MAIL, constraint("example.org")]) == ""
    assert below(more=[FOR_MAIL, constraint(".org", "example.org", excluded=["example.com"])]) == ""
    assert below(more=[constraint("alice@example.org")]) == ""


def test_constraints_hold_for_an_address_in_the_subject_beside_other_names() -> None:
    """The path validation looks at the subject's address only where there is no SAN at all."""
    root = authority()
    ca = root.authority("Sub", more=[constraint("example.com")])
    web = x509.SubjectAlternativeName([x509.DNSName("mallory.example.com")])
    who = ca.issue(mail=(), subject_mail="alice@example.org", more=[web])
    assert "may not vouch" in problem(root, who, ca)


def test_constraints_hold_for_smtp_utf8_mailboxes() -> None:
    value = b"\x0c" + bytes((len("älice@example.org".encode()),)) + "älice@example.org".encode()
    mailbox = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), value)
    root = authority()
    for base, why in (("example.org", ""), ("example.com", "may not vouch")):
        ca = root.authority("Sub", more=[constraint(base)])
        who = ca.issue(more=[x509.SubjectAlternativeName([mailbox])])
        assert Certificate(who.der).addresses == ("älice@example.org",)
        found = problem(root, who, ca)
        assert (why in found) if why else found == ""


def test_who_is_no_ca_issues_nothing() -> None:
    root = authority()
    who = root.issue()
    forged = Authority(who.private, who.certificate, "Forged").issue("p256", "Victim")
    assert "no CA" in problem(root, forged, Authority(who.private, who.certificate))


def test_only_ones_own_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    bundle, own = authority("Of the system"), authority("One's own")
    (tmp_path / "bundle.pem").write_bytes(bundle.pem)
    monkeypatch.setattr(roots.Bundle.__init__, "__defaults__", ((str(tmp_path / "bundle.pem"),),))
    Store(tmp_path / "data/hsmagent").add(Certificate(own.der), root=True)
    who = Certificate(bundle.issue().der)
    judge = trust.judge()
    assert Trust(judge.anchors, NOW).judge(who).problem == ""
    assert Trust(judge.anchors, NOW, [who]).judge(Certificate(own.issue().der)).problem == ""
    config = tmp_path / "config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[mail]\nroots = "own"\n')
    anchors = trust.judge().anchors
    assert "no chain" in Trust(anchors, NOW, [who]).judge(who).problem
    assert Trust(anchors, NOW).judge(Certificate(own.issue().der)).problem == ""


def test_the_names_of_authorities_are_compared_as_names_are() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Exämple  Org")])
    other = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "exämple org")])
    assert names.key(name.public_bytes()) == names.key(other.public_bytes())
