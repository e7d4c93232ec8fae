"""`hsmagent cert …`: requests that openssl, certtool and a CA accept; certificates in tokens."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from hsmagent.schsm.apdu import INS, SW
from tests.manage.authority import Ca
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool

PIN = "271828"
SO_PIN = "31415926"
ADDRESS = "alice@example.org"
UMLAUT = "jörg@example.org"


def checked(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.fixture
def made(soft: Managed) -> Managed:
    soft.does("token", "init", "--label", "demo", secrets=(SO_PIN, PIN))
    return soft


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
def test_a_request_is_good_for_openssl_and_certtool(made: Managed, kind: str) -> None:
    made.does("key", "new", kind, "--for", "mail", secrets=(PIN,))
    words = ("cert", "request", "mail", "--email", ADDRESS, "--email", UMLAUT)
    pem = made.does(*words, "--subject", "CN=Alice Example,O=Example", secrets=(PIN,))
    said = checked(["openssl", "req", "-verify", "-noout", "-text"], pem)
    assert "verify OK" in said.replace("self-signature verify", "verify")
    assert f"email:{ADDRESS}" in said
    assert "SmtpUTF8Mailbox:jörg" in said or "UTF8" in said.upper()
    assert "E-mail Protection" in said
    assert ("Key Encipherment" in said) is (kind == "rsa2048")
    assert ("Key Agreement" in said) is kind.startswith("p")
    assert ADDRESS in checked(["certtool", "--crq-info"], pem)
    subject = x509.load_pem_x509_csr(pem.encode()).subject.rfc4514_string()
    assert subject == "CN=Alice Example,O=Example"


@pytest.mark.parametrize("form", ["pem", "der", "p7b", "p7"])
def test_a_certificate_comes_back_from_a_ca(made: Managed, tmp_path: Path, form: str) -> None:
    ca = Ca()
    made.does("key", "new", "--for", "mail", secrets=(PIN,))
    made.does("key", "new", "--for", "ssh", secrets=(PIN,))
    pem = made.does("cert", "request", "mail", "--email", ADDRESS, secrets=(PIN,))
    leaf = ca.answer(pem)
    both = [leaf, ca.certificate]
    content = {
        "pem": b"".join(each.public_bytes(Encoding.PEM) for each in both),
        "der": leaf.public_bytes(Encoding.DER),
        "p7b": pkcs7.serialize_certificates(both, Encoding.DER),
        "p7": pkcs7.serialize_certificates(both, Encoding.PEM),
    }[form]
    file = tmp_path / "mail.cert"
    file.write_bytes(content)
    made.does("cert", "import", str(file), secrets=(PIN,))
    assert made.does("cert", "export", "mail").encode() == leaf.public_bytes(Encoding.PEM)
    listed = made.does("cert", "list")
    assert f"{ADDRESS}, by CN=a CA" in listed
    assert "key “mail”" in listed
    assert pkcs11_tool(made.provider, "--token-label", "demo", "-O").count("Certificate Object") > 0
    assert "already" in made("cert", "import", str(file), secrets=(PIN,)).err
    # Another one for the same key takes its place, once that was said.
    again = ca.answer(pem)
    file.write_bytes(again.public_bytes(Encoding.PEM))
    ran = made("cert", "import", str(file), "--yes", secrets=(PIN,))
    assert "replaces the certificate of “mail”" in ran.err
    assert ran.status == 0
    assert made.does("cert", "export", "mail").encode() == again.public_bytes(Encoding.PEM)
    made.does("cert", "delete", "mail", "--yes", secrets=(PIN,))
    assert "no certificate" in made.fails("cert", "export", "mail", status=2)
    assert "failed" not in made.does("key", "test", "mail", secrets=(PIN,))


def test_a_strangers_certificate_is_refused(made: Managed, tmp_path: Path) -> None:
    made.does("key", "new", secrets=(PIN,))
    file = tmp_path / "ca.pem"
    file.write_bytes(Ca().certificate.public_bytes(Encoding.PEM))
    assert "no key here" in made.fails("cert", "import", str(file), secrets=(PIN,), status=2)
    file.write_bytes(b"nothing")
    assert "no certificate" in made.fails("cert", "import", str(file), secrets=(PIN,), status=2)
    missing = str(tmp_path / "missing")
    assert "cannot read" in made.fails("cert", "import", missing, secrets=(PIN,))


@pytest.mark.parametrize("wrong", ["alice", "@example.org", "a b@c", "a@", "a@\u202ec"])
def test_what_is_no_address_is_refused(made: Managed, wrong: str) -> None:
    words = ("cert", "request", "mail", "--email", wrong)
    assert "no mail address" in made.fails(*words, secrets=(PIN,), status=2)


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_a_self_signed_certificate_is_good_for_mail(
    made: Managed, tmp_path: Path, kind: str
) -> None:
    made.does("key", "new", kind, "--for", "mail", secrets=(PIN,))
    pem = made.does("cert", "self-sign", "mail", "--email", ADDRESS, secrets=(PIN,))
    file = tmp_path / "self.pem"
    file.write_text(pem)
    for purpose in ("smimesign", "smimeencrypt") if kind == "rsa2048" else ("smimesign",):
        openssl = ["openssl", "verify", "-CAfile", str(file), "-partial_chain"]
        assert "OK" in checked([*openssl, "-purpose", purpose, str(file)], "")
    assert made.does("cert", "export", "mail") == pem


# -- a card ------------------------------------------------------------------------------------


def test_what_a_card_refused_is_not_told_as_done(
    reader: Reader, card: Managed, tmp_path: Path
) -> None:
    """Whatever OpenSC says of it: 0.26 says OK."""
    (tmp_path / "note").write_text("another")
    for words in (
        ("data", "write", "note", "note", "--yes"),
        ("cert", "self-sign", "ssh", "--email", ADDRESS, "--yes"),
    ):
        reader.card.knobs.override[INS.UPDATE_BINARY] = (SW.NO_MEMORY, 1)
        card.fails(*words, secrets=(DEFAULT_PIN,))
        assert reader.card.knobs.override[INS.UPDATE_BINARY][1] == 0


def test_what_cannot_be_replaced_stays(reader: Reader, card: Managed, tmp_path: Path) -> None:
    """A card that is full takes the new one not; the old one is put back, and the key is found."""
    if "(ver 0.26)" in pkcs11_tool(reader.provider, "-I"):
        pytest.skip("this OpenSC tells nobody that the card has refused to write")
    old = card.does("cert", "export", "ssh")
    reader.card.knobs.override[INS.UPDATE_BINARY] = (SW.NO_MEMORY, 1)
    self_sign = ("cert", "self-sign", "ssh", "--email", ADDRESS, "--yes")
    assert "C_CreateObject" in card.fails(*self_sign, secrets=(DEFAULT_PIN,))
    assert card.does("cert", "export", "ssh") == old
    assert "failed" not in card.does("key", "test", "ssh", secrets=(DEFAULT_PIN,))
    (tmp_path / "note").write_text("another")
    reader.card.knobs.override[INS.UPDATE_BINARY] = (SW.NO_MEMORY, 1)
    write = ("data", "write", "note", "note", "--yes")
    assert "does not keep this data" in card.fails(*write, secrets=(DEFAULT_PIN,))
    assert card.does("data", "read", "note") == "for everyone"


def test_a_card_from_key_to_certificate(reader: Reader, card: Managed, tmp_path: Path) -> None:
    ca = Ca()
    card.does("key", "new", "rsa2048", "--for", "mail", "--label", "post", secrets=(DEFAULT_PIN,))
    pem = card.does("cert", "request", "post", "--email", ADDRESS, secrets=(DEFAULT_PIN,))
    file = tmp_path / "post.pem"
    leaf = ca.answer(pem)
    file.write_bytes(leaf.public_bytes(Encoding.PEM))
    card.does("cert", "import", str(file), secrets=(DEFAULT_PIN,))
    assert leaf.public_bytes(Encoding.DER) in reader.card.files.content.values()
    assert card.does("cert", "export", "post").encode() == leaf.public_bytes(Encoding.PEM)
    assert f"{ADDRESS}, by CN=a CA" in card.does("cert", "list", "--token", "work")
    assert "failed" not in card.does("key", "test", "post", secrets=(DEFAULT_PIN,))
    said = card.fails("cert", "delete", "post", "--yes", secrets=(DEFAULT_PIN,), status=2)
    assert "nobody could find “post” without it" in said
    assert leaf.public_bytes(Encoding.DER) in reader.card.files.content.values()
    # Another one takes its place.
    file.write_bytes(ca.answer(pem).public_bytes(Encoding.PEM))
    card.does("cert", "import", str(file), "--yes", secrets=(DEFAULT_PIN,))
    assert leaf.public_bytes(Encoding.DER) not in reader.card.files.content.values()
    assert "failed" not in card.does("key", "test", "post", secrets=(DEFAULT_PIN,))
    assert not reader.card.logged_in
    user = reader.card.user
    assert user is not None
    assert user.wrong == 0
