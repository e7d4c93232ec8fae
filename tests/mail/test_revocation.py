"""A CRL that is at hand always counts, and without one the report says so."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyhanko_certvalidator import validate

from hsmagent.cli import openssl_smime
from hsmagent.mail import intake, roots, sign, verify
from hsmagent.mail.cms import ber, der
from hsmagent.mail.cms.ber import Reader
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.report import Report
from hsmagent.mail.spool import Memory, Spool
from hsmagent.mail.store import Store
from hsmagent.mail.trust import Anchors, Revocation
from hsmagent.mail.verify import Judge
from tests.parts.mail.people import region
from tests.parts.mail.pki import NOW, Authority, Person, SoftwareKeys, authority

MAIL = b"From: alice@example.org\nContent-Type: text/plain\n\nHello\n"


def signed(who: Person, *files: Authority, opaque: bool = False) -> bytes:
    out = Spool()
    options = sign.Options(NOW, files=tuple(Certificate(f.der) for f in files), opaque=opaque)
    sign.message(region(MAIL), out, SoftwareKeys([who]), options)
    return out.read_at(0, out.size)


def report(
    mail: bytes, root: Authority, *pems: bytes, required: Revocation = Revocation.AT_HAND
) -> Report:
    crls = tuple(one for pem in pems for one in roots.read_crls(pem))
    return verify.message(
        region(mail), Judge(Anchors((Certificate(root.der),), crls, required), NOW)
    ).report


def test_a_revoked_signer_is_refused_and_another_one_is_not() -> None:
    root = authority()
    who, other = root.issue(), root.issue()
    mail = signed(who)
    found = report(mail, root, root.crl(other, who))
    assert not found.ok
    assert "was revoked on" in found.signatures[0].problem
    good = report(mail, root, root.crl(other))
    assert good.ok
    assert good.signatures[0].remarks == ()


def test_a_library_that_waits_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that we know does, so that no event loop is made for it."""
    there = validate.async_validate_path

    async def later(*given: Any) -> Any:
        await asyncio.sleep(0)
        return await there(*given)

    monkeypatch.setattr(validate, "async_validate_path", later)
    root = authority()
    assert report(signed(root.issue()), root).ok
    assert not report(signed(root.issue()), authority()).ok


def test_a_revoked_authority_is_refused() -> None:
    root = authority()
    ca = root.authority("Sub")
    mail = signed(ca.issue(), ca)
    assert "Sub was revoked" in report(mail, root, root.crl(ca)).signatures[0].problem
    found = report(mail, root, root.crl())
    assert found.ok
    assert found.signatures[0].remarks == (
        "revocation was not checked for Alice Example: there is no CRL",
    )


def test_without_a_crl_it_is_said_that_nothing_was_checked() -> None:
    root = authority()
    found = report(signed(root.issue()), root)
    assert found.ok
    assert "revocation was not checked" in found.text()
    for required in (Revocation.LEAF, Revocation.ALL):
        assert not report(signed(root.issue()), root, required=required).ok


def test_only_the_signer_must_have_a_crl_where_that_is_asked() -> None:
    root = authority()
    ca = root.authority("Sub")
    mail = signed(ca.issue(), ca)
    assert report(mail, root, ca.crl(), required=Revocation.LEAF).ok
    assert not report(mail, root, ca.crl(), required=Revocation.ALL).ok
    assert report(mail, root, ca.crl(), root.crl(), required=Revocation.ALL).ok


def test_a_crl_of_somebody_else_or_out_of_date_does_not_count_and_that_is_said() -> None:
    root, stranger = authority(), authority()  # of one name
    who = root.issue()
    for made, why in (
        (stranger.crl(who), "the CRL's signature is wrong"),
        (root.crl(until=NOW - timedelta(days=1)), "out of date"),
    ):
        found = report(signed(who), root, made)
        assert found.ok
        assert why in found.signatures[0].remarks[0]
        assert not report(signed(who), root, made, required=Revocation.ALL).ok


def with_crl(mail: bytes, crl: bytes) -> bytes:
    """Put a CRL into an opaque mail's SignedData."""
    import base64

    head, _, body = mail.partition(b"\n\n")
    reader = Reader(Memory(base64.b64decode(body)))
    reader.enter(ber.SEQUENCE, "it")
    kind = reader.element(64, "it")
    reader.enter(ber.context(0), "it")
    reader.enter(ber.SEQUENCE, "it")
    fields = [reader.element(100_000, "it") for _ in range(5)]
    fields.insert(4, der.tlv(0xA1, crl))
    made = der.sequence(kind, der.tlv(0xA0, der.sequence(*fields)))
    return head + b"\n\n" + base64.encodebytes(made)


def test_a_crl_in_the_message_counts_like_one_given() -> None:
    root = authority()
    who = root.issue()
    mail = signed(who, opaque=True)
    [crl] = roots.read_crls(root.crl(who))
    assert report(mail, root).ok
    assert "was revoked" in report(with_crl(mail, crl), root).signatures[0].problem


def test_revocation_information_of_another_kind_is_skipped() -> None:
    """RFC 5940: [1] with an OCSP response in it."""
    root = authority()
    other = der.tlv(0xA1, der.oid("1.3.6.1.5.5.7.16.2"), der.sequence())
    mail = with_crl(signed(root.issue(), opaque=True), other)
    assert report(mail, root).ok


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_hsmagent_smime_obeys_what_openssl_would(
    at_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = authority()
    who = root.issue()
    (at_home / "mail").write_bytes(signed(who))
    (at_home / "ca").write_bytes(root.pem)
    (at_home / "with-crl").write_bytes(root.pem + root.crl(who))
    (at_home / "with-good-crl").write_bytes(root.pem + root.crl())

    def status(ca: str, *options: str) -> int:
        arguments = ["-verify", "-in", f"{at_home}/mail", "-CAfile", f"{at_home}/{ca}", *options]
        return openssl_smime.main([*arguments, "-out", f"{at_home}/out"], lambda: SoftwareKeys([]))

    assert status("ca") == 0
    assert status("with-crl") == 4
    for option in ("-crl_check", "-crl_check_all"):
        assert status("ca", option) == 4
        assert "revocation was not checked" in capfd.readouterr().err
        assert status("with-crl", option) == 4
        assert "was revoked" in capfd.readouterr().err
        assert status("with-good-crl", option) == 0
    assert status("ca", "-purpose", "smimesign") == 0
    assert status("ca", "-purpose", "sslserver") == 2
    assert status("ca", "-x509_strict") == 2
    assert status("ca", "-nointern") == 4
    (at_home / "signer").write_bytes(who.pem)
    assert status("ca", "-nointern", "-certfile", f"{at_home}/signer") == 0
    later = int((NOW + timedelta(days=4000)).timestamp())
    assert status("ca", "-attime", str(later)) == 4


def test_a_crl_in_the_store_counts_for_every_mail(at_home: Path) -> None:
    from hsmagent.cli import trust

    root = authority()
    who = root.issue()
    kept = Store(at_home / "data/hsmagent")
    kept.add(Certificate(root.der), root=True)
    for one in intake.read(root.crl(who)).crls:
        kept.add_crl(one)
    found = verify.message(region(signed(who)), trust.judge()).report
    assert "was revoked" in found.signatures[0].problem
