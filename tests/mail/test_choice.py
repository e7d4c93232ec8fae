"""Which certificate signs and is encrypted to: the rule is the one that `verify` judges by."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsmagent.errors import UsageError
from hsmagent.mail import address, encrypt, identity, mime, purpose, sign, verify
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.identity import NoKey
from hsmagent.mail.spool import Spool
from hsmagent.mail.store import Store
from hsmagent.mail.trust import Anchors, Trust
from tests.parts.mail.people import judge, person, region, root
from tests.parts.mail.pki import NOW, Authority, Person, SoftwareKeys, authority, make_private

MAIL = b"From: alice@example.org\nTo: alice@example.org\nContent-Type: text/plain\n\nHello\n"
LOGIN = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SMARTCARD_LOGON)
TLS = (ExtendedKeyUsageOID.SERVER_AUTH,)
LONG = NOW + timedelta(days=3000)


def usage(**bits: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    more = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: bits.get(name, False) for name in (*names, *more)})


def name_of_signer(*people: Person) -> str:
    out = Spool()
    sign.message(region(MAIL), out, SoftwareKeys(people), sign.Options(NOW))
    report = verify.message(region(out.read_at(0, out.size)), judge()).report
    assert report.ok, report.text()
    who = report.signatures[0].who
    assert who is not None
    return who.name


def test_a_certificate_for_logging_in_does_not_sign_although_it_lives_longest() -> None:
    login = root().issue(name="AUTH", purposes=LOGIN, end=LONG)
    mail = root().issue(name="MAIL")
    assert name_of_signer(login, mail) == "MAIL"
    with pytest.raises(NoKey, match=r"AUTH is for logging in \(TLS\).*not for mail"):
        name_of_signer(login)


def test_one_made_for_mail_goes_before_one_for_everything() -> None:
    anything = root().issue(name="ANY", purposes=(), end=LONG)
    assert name_of_signer(anything) == "ANY"
    assert name_of_signer(anything, root().issue(name="MAIL")) == "MAIL"


def test_one_that_only_encrypts_does_not_sign() -> None:
    sealing = root().issue("rsa", "SEAL", uses=usage(key_encipherment=True), end=LONG)
    assert name_of_signer(sealing, root().issue(name="MAIL")) == "MAIL"


@pytest.mark.parametrize("purposes", [LOGIN, TLS, (), (ExtendedKeyUsageOID.EMAIL_PROTECTION,)])
@pytest.mark.parametrize("uses", [usage(digital_signature=True), usage(key_encipherment=True)])
def test_what_signs_is_what_verifies(
    purposes: tuple[x509.ObjectIdentifier, ...], uses: x509.KeyUsage
) -> None:
    who = Certificate(root().issue("rsa", purposes=purposes, uses=uses).der)
    verdict = Trust(Anchors((Certificate(root().der),)), NOW).judge(who)
    assert verdict.problem == purpose.not_for_signing(who)


def sealed_to(store: Store, *people: Person) -> str:
    for one in people:
        store.add(Certificate(one.der))
    [entry] = encrypt.recipients(
        mime.read(region(MAIL)),
        store,
        encrypt.Options(NOW),
    )
    encrypt.message(region(MAIL), Spool(), store, encrypt.Options(NOW))
    return entry.certificate.name


def test_encrypting_takes_the_one_that_can_be_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    others = [
        root().issue("rsa", "TLS", purposes=TLS, end=LONG),
        root().issue("rsa", "SIGN", uses=usage(digital_signature=True), end=LONG),
        root().issue("ed25519", "ED", uses=usage(key_agreement=True), end=LONG),
        root().issue("p256", "EC", uses=usage(key_encipherment=True), end=LONG),
    ]
    for one in others:
        store.add(Certificate(one.der))
        with pytest.raises(encrypt.NoCertificate):
            encrypt.recipients(mime.read(region(MAIL)), store, encrypt.Options(NOW))
    assert sealed_to(store, root().issue("rsa", "MAIL")) == "MAIL"
    keys = [one.key for one in (*others, root().issue("rsa", "OWN"))]
    assert identity.for_encryption(keys, "alice@example.org", NOW).certificate.name == "OWN"


def test_letter_case_of_a_local_part_finds_ones_own_key_and_a_recipient(tmp_path: Path) -> None:
    who = root().issue("rsa", "Own", mail=("Alice@example.org",))
    assert identity.find([who.key], "alice@EXAMPLE.org", NOW).certificate.name == "Own"
    exact = root().issue("rsa", "Exact")
    assert identity.find([who.key, exact.key], "alice@example.org", NOW).certificate.name == "Exact"
    store = Store(tmp_path)
    assert sealed_to(store, who) == "Own"
    assert sealed_to(store, exact) == "Exact"


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("rita@example.org <rita@example.org>", ("rita@example.org",)),
        ("Rita [Work] <rita@example.org>", ("rita@example.org",)),
        ("Rita @ Work <rita@example.org>", ("rita@example.org",)),
        ("root (Cron Daemon)", ()),
        ("", ()),
    ],
)
def test_what_programs_write_as_from_is_read_for_ones_own_key(
    field: str, found: tuple[str, ...]
) -> None:
    assert address.own_addresses(field) == found


def test_who_signed_is_not_read_so_generously() -> None:
    assert address.mailboxes("r@example.org <r@example.org>") == ("r@example.org",)
    for field in ("Rita @ Work <rita@example.org>", "other@example.org <rita@example.org>"):
        with pytest.raises(UsageError):
            address.mailboxes(field)
    with pytest.raises(UsageError):
        address.own_addresses("rita@example.org, <a@b> oops")


# -- the chain -------------------------------------------------------------------------------


def leads(*roots: Authority) -> Callable[[Certificate], bool]:
    known = {Certificate(one.der).subject for one in roots}
    return lambda last: last.issuer in known


def test_authorities_on_the_token_go_with_the_signature() -> None:
    top = authority("Top")
    middle = top.authority("Middle")
    who = middle.issue()
    key = replace(who.key, authorities=(top.der, middle.der, b"odd"))
    found = identity.Identity(key, Certificate(who.der))
    assert [c.name for c in identity.chain(found)] == ["Alice Example", "Middle"]
    assert identity.incomplete(identity.chain(found), leads(top)) == ""
    alone = identity.Identity(who.key, Certificate(who.der))
    sentence = identity.incomplete(identity.chain(alone), leads(top))
    assert "Common Name: Middle is missing" in sentence
    assert "`hsmagent contacts add FILE`" in sentence


def test_signing_says_once_that_the_chain_is_incomplete() -> None:
    top = authority("Top")
    who = top.authority("Middle").issue()
    options = sign.Options(NOW, leads_to_root=leads(top))
    [warning] = sign.message(region(MAIL), Spool(), SoftwareKeys([who]), options)
    assert "Middle is missing" in warning
    assert sign.message(region(MAIL), Spool(), SoftwareKeys([top.issue()]), options) == ()


def test_check_finds_what_is_wrong_with_identities() -> None:
    top = authority("Top")
    good = top.issue(name="Good")
    wrong = {
        "is for logging in": top.issue(purposes=LOGIN),
        "names no mail address": top.issue(mail=(), name="Nameless"),
        "expires on": top.issue(end=NOW + timedelta(days=3)),
        "expired on": top.issue(end=NOW - timedelta(hours=3)),
        "Middle is missing": top.authority("Middle").issue(),
    }
    assert identity.check([good.key], NOW, leads(top)) == []
    for sentence, who in wrong.items():
        [finding] = identity.check([good.key, who.key], NOW, leads(top))
        assert sentence in finding.problem
        assert finding.certificate == Certificate(who.der)


def test_a_certificate_for_logging_in_beside_one_for_mail_is_no_finding() -> None:
    private = make_private("p256")
    login = root().issue(purposes=LOGIN, private=private)
    both = Person(private, login.certificate, "both")
    mail = Certificate(root().issue(private=private).der)
    assert identity.check([both.key], NOW, leads(root()), [mail]) == []


def test_the_store_knows_which_issuers_are_roots(tmp_path: Path) -> None:
    store = Store(tmp_path)
    leaf = Certificate(person("rsa").der)
    assert not store.leads_to_root(leaf)
    store.add(Certificate(root().der), root=True)
    assert store.leads_to_root(leaf)
