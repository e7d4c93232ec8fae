"""Encrypting and decrypting: OpenSSL in both directions, and every kind of recipient."""

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hsmagent.errors import HsmAgentError
from hsmagent.mail import decrypt, encrypt
from hsmagent.mail.cms import der, oids
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.spool import Spool
from hsmagent.mail.store import Entry, Store
from tests.parts.mail.people import judge, person, region, root, signed
from tests.parts.mail.pki import NOW, Person, SoftwareKeys

BODY = b"Content-Type: text/plain\n\nHello\nWorld\n"
MESSAGE = b"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n" + BODY


def openssl_encrypt(tmp_path: Path, who: Person, *options: str, body: bytes = BODY) -> bytes:
    certificate, _ = who.write(tmp_path, "to")
    at = options.index("-keyopt") if "-keyopt" in options else len(options)
    command = ["openssl", "cms", "-encrypt", *options[:at], "-recip", certificate, *options[at:]]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    return b"From: bob@example.org\nSubject: Hi\n" + done.stdout


def decrypted(mail: bytes, *people: Person, **options: Any) -> bytes:
    out = Spool()
    decrypt.message(region(mail), out, SoftwareKeys(people), decrypt.Options(**options))
    return out.read_at(0, out.size)


def encrypted(
    message: bytes, *people: Person, store: Path = Path("/none"), **options: Any
) -> bytes:
    out = Spool()
    given = tuple(Entry(Certificate(p.der)) for p in people)
    encrypt.message(
        region(message), out, Store(store), encrypt.Options(NOW, given=given, **options)
    )
    return out.read_at(0, out.size)


@pytest.mark.parametrize(
    "options",
    [
        ("-aes256",),
        ("-aes128", "-stream"),
        ("-aes192", "-keyid"),
        ("-des3", "-aes256-wrap"),
        ("-aes-256-gcm",),
        ("-aes-128-gcm", "-stream"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "brainpool"])
def test_we_decrypt_what_openssl_encrypts(
    kind: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    mail = openssl_encrypt(tmp_path, person(kind), *options)
    plain = decrypted(mail, person("ed25519"), person(kind))
    assert plain == b"From: bob@example.org\nSubject: Hi\nMIME-Version: 1.0\n" + BODY


@pytest.mark.parametrize(
    "keyopts",
    [
        ("rsa_padding_mode:oaep",),
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256"),
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha512", "rsa_mgf1_md:sha1"),
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_oaep_label:0102ff"),
    ],
    ids=" ".join,
)
def test_we_decrypt_oaep(keyopts: tuple[str, ...], tmp_path: Path) -> None:
    options = [word for option in keyopts for word in ("-keyopt", option)]
    mail = openssl_encrypt(tmp_path, person("rsa"), "-aes256", *options)
    assert decrypted(mail, person("rsa")).endswith(BODY)


@pytest.mark.parametrize("wrap", ["aes128", "aes192", "aes256"])
@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("cofactor", ["0", "1"])
def test_we_decrypt_every_key_agreement(
    cofactor: str, digest: str, wrap: str, tmp_path: Path
) -> None:
    options = ("-keyopt", f"ecdh_kdf_md:{digest}", "-keyopt", f"ecdh_cofactor_mode:{cofactor}")
    mail = openssl_encrypt(tmp_path, person("p256"), f"-{wrap}", f"-{wrap}-wrap", *options)
    assert decrypted(mail, person("p256")).endswith(BODY)


def test_we_decrypt_a_wrap_with_null_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before RFC 5753 the AES wraps were given NULL, and some writers still do that."""
    wrap = der.oid(oids.AES_256_WRAP) + der.NULL
    plain_oid = der.oid
    with monkeypatch.context() as patch:
        patch.setattr(der, "oid", lambda o: wrap if o == oids.AES_256_WRAP else plain_oid(o))
        mail = encrypted(MESSAGE, person("p256"))
    assert wrap in base64.b64decode(mail.partition(b"\n\n")[2])
    assert decrypted(mail, person("p256")).endswith(BODY)


@pytest.mark.parametrize("gcm", [False, True], ids=["cbc", "gcm"])
@pytest.mark.parametrize("kind", ["rsa", "oaep", "p256", "p384", "p521", "brainpool"])
def test_openssl_decrypts_what_we_encrypt(kind: str, gcm: bool, tmp_path: Path) -> None:
    who = person("rsa" if kind == "oaep" else kind)
    mail = encrypted(MESSAGE, person("p256"), who, gcm=gcm, oaep=kind == "oaep")
    (tmp_path / "mail").write_bytes(mail)
    certificate, key = who.write(tmp_path, "to")
    command = ["openssl", "cms", "-decrypt", "-in", str(tmp_path / "mail")]
    done = subprocess.run(
        [*command, "-recip", certificate, "-inkey", key], capture_output=True, check=True
    )
    assert done.stdout.replace(b"\r", b"") == BODY
    assert b"Subject: Hi" in mail
    assert decrypted(mail, who).endswith(BODY)


def test_one_error_for_every_damage(tmp_path: Path) -> None:
    """Key damaged, content damaged, cut short, padding wrong: nobody can tell which."""
    who, sentences = person("rsa"), set()
    # With CBC, the last byte of the padding and the first of the mail: they are wrong for certain,
    # where a damaged block decrypts to random bytes, and these may be right.
    for cipher, places in (("-aes256", (-17, -66)), ("-aes-256-gcm", (-1, -40))):
        mail = openssl_encrypt(tmp_path, who, cipher, "-outform", "DER")
        der = mail.partition(b"Subject: Hi\n")[2]
        for at in (*places, der.index(b"\4\x82\1\0") + 50):
            broken = bytearray(der)
            broken[at] ^= 0x40
            with pytest.raises(Undecryptable) as caught:
                decrypted(wrap(bytes(broken)), who)
            sentences.add(str(caught.value))
    assert len(sentences) == 1


def wrap(der: bytes) -> bytes:
    head = b"From: bob@example.org\nContent-Type: application/pkcs7-mime\n"
    return head + b"Content-Transfer-Encoding: binary\n\n" + der


def test_not_for_us_is_said(tmp_path: Path) -> None:
    mail = openssl_encrypt(tmp_path, person("rsa"), "-aes256")
    with pytest.raises(HsmAgentError, match="any of your keys"):
        decrypted(mail, person("p256"))


def test_only_one_recipient_info_is_tried(tmp_path: Path) -> None:
    who = person("rsa")
    certificate, _ = who.write(tmp_path, "one")
    mail = openssl_encrypt(tmp_path, who, "-aes256", "-recip", certificate)
    keys = SoftwareKeys([who])
    decrypt.message(region(mail), Spool(), keys, decrypt.Options())
    assert [what for what, _ in keys.asked] == ["unwrap"]
    assert keys.asked[0][1].subject == "Hi"


def test_triple_wrap_is_opened_and_verified() -> None:
    who = person("p256")
    inner = signed(MESSAGE, who)
    mail = signed(encrypted(inner, who), who)
    out = Spool()
    done = decrypt.message(region(mail), out, SoftwareKeys([who]), decrypt.Options(judge=judge()))
    assert done.report is not None
    assert done.report.ok, done.report.text()
    assert len(done.report.signatures) == 2
    assert out.read_at(0, out.size).endswith(BODY)


def test_gcm_only_when_all_can(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bob = root().issue("p256", "Bob", mail=("bob@example.org",))
    store.add(Certificate(bob.der))
    assert b"smime-type=enveloped-data" in encrypted(MESSAGE, store=tmp_path)
    store.add(Certificate(bob.der), ["2.16.840.1.101.3.4.1.46"])
    assert b"smime-type=authEnveloped-data" in encrypted(MESSAGE, store=tmp_path)
    both = MESSAGE.replace(b"To: ", b'Bcc: eve@example.org\nTo: "B, B." <carl@example.org>, ')
    with pytest.raises(encrypt.NoCertificate) as caught:
        encrypted(both, store=tmp_path)
    assert caught.value.addresses == ("carl@example.org",)


def test_bcc_never_leaves() -> None:
    mail = encrypted(MESSAGE.replace(b"To:", b"Bcc: eve@example.org\nTo:"), person("p256"))
    assert b"eve@" not in mail
