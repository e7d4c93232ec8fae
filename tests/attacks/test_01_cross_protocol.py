"""A forwarded host has a token's key sign a "login" that is good as something else.

The host speaks to the real daemon over a connection that was bound with forwarding, with the token
unlocked and nobody there who could be asked. What it is given a signature for, it wraps as CMS
without signed attributes, whose signature is over the content itself (RFC 5652, section 5.4), and
`openssl cms` calls that a good mail.
"""

import hashlib
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from asn1crypto import cms, x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.attacks.conftest import Connect
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.hostile import Client, blob_of, mpint, rsa_key, string
from tests.parts.mail.pki import Authority, Person, authority
from tests.parts.token.softhsm import PIN, SoftHsm

TEXT = b"Content-Type: text/plain\r\n\r\nI owe Mallory 1000 EUR.\r\n"
SHORT = b"I owe Mallory 1000 EUR.\r\n"
QUIET = '[prompt]\ntimeout = "1s"\n'
SHA2_256 = 2


@dataclass(frozen=True)
class Scene:
    """A daemon whose token holds a key with a certificate for mail, and one without."""

    agent: AgentProcess
    root: Authority
    alice: Person
    plain: ec.EllipticCurvePrivateKey
    connect: Connect

    @property
    def blob(self) -> bytes:
        return ecdsa_blob(self.alice.private)

    def here(self) -> Client:
        """Return a connection of a program on this machine."""
        return self.connect(self.agent)

    def forwarded(self) -> Client:
        """Return a connection as the forwarded host has it."""
        client = self.here()
        jump = ed25519.Ed25519PrivateKey.generate()
        assert client.bind(jump, secrets.token_bytes(32), forwarding=True)
        return client


def ecdsa_blob(private: ec.EllipticCurvePrivateKey) -> bytes:
    point = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(point)


@pytest.fixture
def scene(start: Start, connect: Connect, tmp_path: Path) -> Scene:
    root = authority()
    alice, other = root.issue("p256"), root.issue("p256")
    hsm = SoftHsm.create(tmp_path / "hsm")
    hsm.init_token("work")
    for number, name, person in (("01", "mail", alice), ("02", "plain", other)):
        pem, der = tmp_path / f"{name}.pem", tmp_path / f"{name}.der"
        pem.write_bytes(person.key_pem)
        der.write_bytes(person.der)
        hsm.import_key("work", pem, number, name)
        if person is alice:
            hsm.write("work", "cert", der, number, name)
    agent = start(module_config(hsm, QUIET))
    assert agent.unlock(PIN).returncode == 0
    return Scene(agent, root, alice, other.private, connect)


def login(
    blob: bytes,
    *,
    session: bytes = b"",
    user: bytes = b"alice",
    algorithm: bytes = b"ecdsa-sha2-nistp256",
    host_key: bytes = b"",
) -> bytes:
    method = b"publickey-hostbound-v00@openssh.com" if host_key else b"publickey"
    return (
        string(session or secrets.token_bytes(32))
        + b"\x32"
        + b"".join(map(string, (user, b"ssh-connection", method)))
        + b"\x01"
        + string(algorithm)
        + string(blob)
        + (string(host_key) if host_key else b"")
    )


def sshsig(namespace: bytes, reserved: bytes, hash_name: bytes, digest: bytes) -> bytes:
    return b"SSHSIG" + b"".join(map(string, (namespace, reserved, hash_name, digest)))


def certificate_body(blob: bytes, authority_blob: bytes, key_id: bytes) -> bytes:
    """Return what an ssh authority signs."""
    kind, rest = b"ecdsa-sha2-nistp256-cert-v01@openssh.com", blob[4 + 19 :]
    return (
        string(kind)
        + string(b"nonce")
        + rest
        + bytes(8)
        + (1).to_bytes(4, "big")
        + string(key_id)
        + string(b"")
        + bytes(8)
        + b"\xff" * 8
        + string(b"") * 3
        + string(authority_blob)
    )


def user_certificate(scene: Scene, key_id: bytes) -> bytes:
    """Return a certificate for Alice's key, by an authority of the attacker's."""
    ours = ed25519.Ed25519PrivateKey.generate()
    body = certificate_body(scene.blob, blob_of(ours), key_id)
    return body + string(string(b"ssh-ed25519") + string(ours.sign(body)))


def forgeries(scene: Scene, host_key: bytes) -> dict[str, bytes]:
    """Return what passes for something of ssh's, and holds a text of the attacker's."""
    blob = scene.blob
    digest = hashlib.sha512(b"").digest()
    cert = user_certificate(scene, TEXT)
    return {
        "a session id": login(blob, session=TEXT),
        "a session id of the right length": login(blob, session=TEXT.ljust(64)),
        "a user's name": login(blob, user=TEXT),
        "an algorithm": login(blob, algorithm=TEXT),
        "a certificate": login(
            cert, algorithm=b"ecdsa-sha2-nistp256-cert-v01@openssh.com"
        ),
        "a host key that is none": login(blob, host_key=TEXT),
        "a host key that is not bound": login(blob, host_key=string(TEXT) + host_key),
        "a namespace": sshsig(TEXT, b"", b"sha512", digest),
        "what is reserved": sshsig(b"file", TEXT, b"sha512", digest),
        "the name of a hash": sshsig(b"file", b"", TEXT, digest),
        "a digest": sshsig(b"file", b"", b"sha512", TEXT),
        "a digest of the right length": sshsig(b"file", b"", b"sha512", TEXT.ljust(64)),
        "an id of who is certified": certificate_body(blob, blob, TEXT),
    }  # fmt: skip


def as_mail(scene: Scene, content: bytes, signature: bytes) -> bytes:
    """Return CMS without signed attributes around a content and its signature."""
    r_size = int.from_bytes(signature[:4], "big")
    r, s = signature[4 : 4 + r_size], signature[8 + r_size :]
    der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    certificate = x509.Certificate.load(scene.alice.der)
    info = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            "issuer_and_serial_number",
            {"issuer": certificate.issuer, "serial_number": certificate.serial_number},
        ),
        "digest_algorithm": {"algorithm": "sha256"},
        "signature_algorithm": {"algorithm": "sha256_ecdsa"},
        "signature": der,
    }
    signed = {
        "version": "v1",
        "digest_algorithms": [{"algorithm": "sha256"}],
        "encap_content_info": {"content_type": "data", "content": content},
        "certificates": [certificate],
        "signer_infos": [info],
    }
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump())


def is_good_mail(scene: Scene, content: bytes, signature: bytes, folder: Path) -> bool:
    message, root = folder / "message.der", folder / "root.pem"
    message.write_bytes(as_mail(scene, content, signature))
    root.write_bytes(scene.root.pem)
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", message,
         "-CAfile", root, "-purpose", "any"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    return done.returncode == 0 and SHORT.strip() in done.stdout


def test_no_text_of_a_forwarded_hosts_is_signed_as_something_of_sshs(
    scene: Scene, tmp_path: Path
) -> None:
    host = ed25519.Ed25519PrivateKey.generate()
    client = scene.forwarded()
    assert client.bind(host, secrets.token_bytes(32), forwarding=False)
    good = [
        name
        for name, data in forgeries(scene, blob_of(host)).items()
        if (signature := client.sign(scene.blob, data))
        and is_good_mail(scene, data, signature, tmp_path)
    ]
    assert good == []


@pytest.mark.parametrize("key", ["mail", "plain"])
@pytest.mark.parametrize("where", ["beginning", "end"])
def test_no_text_in_the_modulus_of_a_host_that_nobody_knows(
    scene: Scene, key: str, where: str
) -> None:
    """Half of a modulus can be chosen although its private key is known: a mail, an OpenPGP end."""
    trailer = bytes.fromhex("04ff") + (7).to_bytes(4, "big")  # a modulus is odd
    host = rsa_key(beginning=TEXT) if where == "beginning" else rsa_key(end=b"\x55" + trailer)
    blob = scene.blob if key == "mail" else ecdsa_blob(scene.plain)
    session = secrets.token_bytes(32)
    client = scene.forwarded()
    assert client.bind(host, session, forwarding=False)
    data = login(blob, session=session, host_key=blob_of(host))
    assert TEXT in data or data.endswith(trailer)
    assert client.sign(blob, data) == b""


def test_no_host_certificate_that_nobody_knows(scene: Scene) -> None:
    """Its principals and options hold any text; the attacker is the authority."""
    host = ed25519.Ed25519PrivateKey.generate()
    body = (
        string(b"ssh-ed25519-cert-v01@openssh.com")
        + string(b"nonce")
        + string(host.public_key().public_bytes_raw())
        + bytes(8)
        + (2).to_bytes(4, "big")
        + string(TEXT)
        + string(b"")
        + bytes(8)
        + b"\xff" * 8
        + string(b"") * 3
        + string(blob_of(host))
    )
    host_key = body + string(string(b"ssh-ed25519") + string(host.sign(body)))
    blob, session = ecdsa_blob(scene.plain), secrets.token_bytes(32)
    client = scene.forwarded()
    assert client.bind(host, session, forwarding=False, host_key=host_key)
    assert client.sign(blob, login(blob, session=session, host_key=host_key)) == b""


def test_no_digest_that_ends_as_openpgp(scene: Scene) -> None:
    data = sshsig(b"file", b"", b"sha256", secrets.token_bytes(26) + b"\x04\xff\0\0\0\x20")
    assert scene.here().sign(ecdsa_blob(scene.plain), data) == b""


def test_no_ssh_certificate_without_a_question(scene: Scene) -> None:
    blob = ecdsa_blob(scene.plain)
    data = certificate_body(blob, blob, b"id")
    assert scene.here().sign(blob, data) == b""


def test_a_key_with_a_certificate_for_mail_asks_on_a_forwarded_connection(scene: Scene) -> None:
    host, session = ed25519.Ed25519PrivateKey.generate(), secrets.token_bytes(32)
    client = scene.forwarded()
    assert client.bind(host, session, forwarding=False)
    plain = ecdsa_blob(scene.plain)
    asked = login(scene.blob, session=session, host_key=blob_of(host))
    assert client.sign(scene.blob, asked) == b""
    # Which is no burden on keys that are for ssh alone, nor where nothing is forwarded.
    assert client.sign(plain, login(plain, session=session, host_key=blob_of(host)))
    here = scene.here()
    assert here.bind(host, session, forwarding=False)
    assert here.sign(scene.blob, asked)


def test_no_sha_1_without_a_question(start: Start, connect: Connect, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished, QUIET))
    assert agent.unlock(PIN).returncode == 0
    line = agent.hsmagent("pubkey", "rsa").stdout.split()
    public = serialization.load_ssh_public_key(" ".join(line[:2]).encode())
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = public.public_numbers()
    blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    client = connect(agent)
    assert client.sign(blob, login(blob, algorithm=b"ssh-rsa"), flags=0) == b""
    assert client.sign(blob, login(blob, algorithm=b"rsa-sha2-256"), flags=SHA2_256)
