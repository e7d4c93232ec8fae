"""A small mail whose certificates take a long time to put in order, or to read."""

import base64
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsmagent.errors import UsageError
from hsmagent.mail import chains, sign, verify
from hsmagent.mail.cms import ber, der, oids, signers
from hsmagent.mail.cms.ber import Reader
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.spool import Memory, Spool
from hsmagent.mail.trust import Anchors, Trust
from hsmagent.mail.verify import Judge
from tests.parts.mail.people import region, root
from tests.parts.mail.pki import NOW, Authority, SoftwareKeys, authority, make_private

MAIL = b"From: alice@example.org\nContent-Type: text/plain\n\nHello\n"
SECONDS = 6


def signed_by_all(people: Sequence[Authority], brought: Sequence[Certificate]) -> bytes:
    """Return an opaque mail with a signature by each, and these certificates."""
    infos = []
    for who in people:
        out = Spool()
        options = sign.Options(NOW, opaque=True, key=who.label, allow_expired=True)
        sign.message(region(MAIL), out, SoftwareKeys([who]), options)
        cms = out.read_at(0, out.size).partition(b"\n\n")[2]
        reader = Reader(Memory(base64.b64decode(cms)))
        reader.enter(ber.SEQUENCE, "it")
        reader.element(64, "it")
        reader.enter(ber.context(0), "it")
        reader.enter(ber.SEQUENCE, "it")
        head = [reader.element(100_000, "it") for _ in range(3)]
        reader.element(1_000_000, "it")
        infos.append(reader.element(100_000, "it", ber.SET)[2 + 2 :])
    inside = b"".join(head) + der.tlv(0xA0, *(c.der for c in brought)) + der.tlv(0x31, *infos)
    whole = der.sequence(der.oid(oids.ID_SIGNED_DATA), der.tlv(0xA0, der.sequence(inside)))
    return (
        b"From: alice@example.org\nContent-Type: application/pkcs7-mime\n"
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(whole)
    )


def self_issued(name: str, private: object, many: int) -> list[Certificate]:
    """Return certificates of one name and key that all seem to have issued each other."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    found = []
    for number in range(many):
        builder = (
            x509.CertificateBuilder(subject, subject, private.public_key(), number + 100)  # type: ignore[attr-defined]
            .not_valid_before(NOW - timedelta(days=2))
            .not_valid_after(NOW + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        made = builder.sign(private, hashes.SHA256())  # type: ignore[arg-type]
        found.append(Certificate(made.public_bytes(Encoding.DER)))
    return found


@pytest.mark.parametrize("anchored", [False, True])
def test_many_certificates_of_one_name_and_key_and_many_signers(anchored: bool) -> None:
    """Unanchored, none leads to a root; anchored, each does, and the signers' have expired."""
    private = make_private("p256")
    top = root().authority("Bomb", private=private) if anchored else authority("Bomb")
    key = private if anchored else top.private
    ended = NOW - timedelta(hours=1)
    signing = [top.issue(name=f"S{n}", end=ended, label=f"S{n}") for n in range(4)]
    people = [Authority(who.private, who.certificate, who.label) for who in signing] * 4
    crowd = [Certificate(top.der), *self_issued("Bomb", key, 45)]
    crowd += [Certificate(who.der) for who in signing]
    mail = signed_by_all(people, crowd)
    started = time.process_time()
    judge = Judge(Anchors((Certificate(root().der),)), NOW)
    report = verify.message(region(mail), judge).report
    assert time.process_time() - started < SECONDS
    assert len(report.signatures) == 16
    assert not any(signature.ok for signature in report.signatures)
    wanted = "expired on" if anchored else "no chain"
    assert all(wanted in signature.problem for signature in report.signatures)


def test_many_keys_of_one_name_that_issued_each_other_are_bounded_and_that_is_said() -> None:
    subject = "Ring"
    ring = [authority(subject) for _ in range(7)]
    crossed = [
        Certificate(authority(subject, above=a, number=50, private=b.private).der)
        for a in ring
        for b in ring
        if a is not b
    ]
    crossed += [Certificate(root().authority(subject, private=one.private).der) for one in ring]
    leaf = Certificate(ring[0].issue(end=NOW - timedelta(hours=1)).der)
    started = time.process_time()
    trust = Trust(Anchors((Certificate(root().der),)), NOW, crossed)
    found = trust.judge(leaf)
    assert time.process_time() - started < SECONDS
    assert "expired on" in found.problem
    assert "more certificates name each other" in found.problem


def test_checks_of_links_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MAX_CHECKS", 5)
    pool = [Certificate(authority("Loop").der) for _ in range(20)]
    found = chains.Chains(pool, [Certificate(root().der)])
    leaf = Certificate(authority("Loop").issue().der)
    assert list(found.paths(leaf)) == []
    assert found.cut


@pytest.mark.parametrize("parts", [65, 1000, 5000])
def test_a_name_of_very_many_parts_is_unreadable_and_nothing_worse(parts: int) -> None:
    part = der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"a"))
    subject = der.sequence(*([der.tlv(0x31, part)] * parts))
    made = root().issue()
    reader = Reader(Memory(made.der))
    reader.enter(ber.SEQUENCE, "it")
    tbs = Reader(Memory(reader.element(10_000, "it")))
    tbs.enter(ber.SEQUENCE, "it")
    fields = [tbs.element(10_000, "it") for _ in range(8)]
    fields[5] = subject
    rest = [reader.element(10_000, "it") for _ in range(2)]
    with pytest.raises(UsageError, match="a certificate that cannot be read"):
        Certificate(der.sequence(der.sequence(*fields), *rest))


def test_a_signer_named_by_such_a_name_is_an_unknown_one() -> None:
    part = der.tlv(0x31, der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, b"a")))
    name = der.sequence(der.sequence(*([part] * 1000)), der.integer(1))
    info = signers.SignerInfo(name, "sha256", b"", der.sequence(), b"")
    found = signers.check(info, [Certificate(root().der)], signers.Covered(lambda: iter([MAIL])))
    assert "not there" in found.problem
    assert not found.checked
