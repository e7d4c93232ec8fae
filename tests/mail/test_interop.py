"""Every peer, every operation, every kind of key: in both directions.

What a peer cannot do is in CANNOT, and each time it fails it must fail on another one's message,
or on its own, in the same way: then it is the peer's.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from hsmagent.mail import decrypt, identity, sign
from hsmagent.mail.cms import enveloped, signers
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.signers import Covered
from hsmagent.mail.keys import Context
from hsmagent.mail.spool import Memory
from tests.parts.mail.peers import CannotDo, Gpgsm, Nss, OpenSsl, Peer
from tests.parts.mail.people import person, root
from tests.parts.mail.pki import NOW, SoftwareKeys

KINDS = ("rsa", "p256", "p384", "ed25519")
PEERS = ("openssl", "nss", "gpgsm")
CONTENT = b"Content-Type: text/plain\r\n\r\nHello\r\n"

CANNOT = {
    ("openssl", "sign", "ed25519"): "3.0 has no default digest for it",
    ("openssl", "verify", "ed25519"): "3.0 has no RFC 8419",
    ("nss", "sign", "ed25519"): "3.87 has no Ed25519",
    ("nss", "verify", "ed25519"): "3.87 has no Ed25519",
    ("nss", "encrypt", "gcm"): "cmsutil has no option for a cipher",
    ("nss", "decrypt", "gcm"): "no AuthEnvelopedData",
    ("nss", "encrypt", "p256"): "3.87 has no ECDH in CMS",
    ("nss", "encrypt", "p384"): "3.87 has no ECDH in CMS",
    ("nss", "decrypt", "p256"): "3.87 has no ECDH in CMS",
    ("nss", "decrypt", "p384"): "3.87 has no ECDH in CMS",
    ("gpgsm", "sign", "p256"): "2.2 cannot import an EC key from PKCS #12",
    ("gpgsm", "sign", "p384"): "2.2 cannot import an EC key from PKCS #12",
    ("gpgsm", "sign", "ed25519"): "cannot import an Ed25519 key from PKCS #12",
    ("gpgsm", "verify", "ed25519"): "no RFC 8419",
    ("gpgsm", "encrypt", "gcm"): "2.2 cannot encrypt with GCM",
    ("gpgsm", "decrypt", "gcm"): "no AES-GCM with a 16-byte tag in 2.2",
    ("gpgsm", "encrypt", "p256"): "2.2 does not take keyAgreement certificates",
    ("gpgsm", "encrypt", "p384"): "2.2 does not take keyAgreement certificates",
    ("gpgsm", "decrypt", "p256"): "2.2 cannot import an EC key from PKCS #12",
    ("gpgsm", "decrypt", "p384"): "2.2 cannot import an EC key from PKCS #12",
}

PEOPLE = {kind: person(kind, f"{kind}@example.org", f"Person {kind}") for kind in KINDS}


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Peer]]:
    folder = tmp_path_factory.mktemp("peers")
    for name in PEERS:
        (folder / name).mkdir()
    gpgsm = Gpgsm(folder / "gpgsm", root(), PEOPLE)
    yield {
        "openssl": OpenSsl(folder / "openssl", root(), PEOPLE),
        "nss": Nss(folder / "nss", root(), PEOPLE),
        "gpgsm": gpgsm,
    }
    gpgsm.close()


def we_sign(kind: str, *, detached: bool) -> bytes:
    who = PEOPLE[kind]
    made = sign.content_signature(
        lambda: iter([CONTENT]),
        SoftwareKeys([who]),
        identity.Identity(who.key, Certificate(who.der)),
        sign.Options(NOW, opaque=not detached),
        Context(),
    )
    return b"".join(made.around([] if detached else [CONTENT]))


def we_verify(der: bytes, *, detached: bool) -> None:
    data = signers.read(Memory(der))
    if detached:
        assert data.content is None
        content = Covered(lambda: iter([CONTENT]))
    else:
        assert data.content is not None
        assert b"".join(data.content.chunks()) == CONTENT
        content = Covered(data.content.chunks)
    assert [signers.check(info, data.certificates, content).problem for info in data.infos] == [""]


def we_encrypt(kind: str, *, gcm: bool) -> bytes:
    certificates = [Certificate(PEOPLE[kind].der)]
    return b"".join(enveloped.build(lambda: iter([CONTENT]), certificates, gcm=gcm))


def we_decrypt(der: bytes, kind: str) -> bytes:
    keys = SoftwareKeys([PEOPLE[kind]])
    entity, _ = decrypt.content(Memory(der), keys, Context(), decrypt.Options())
    return b"".join(entity.region.chunks())


def excused(peer: str, operation: str, *kinds: str) -> None:
    if not any((peer, operation, kind) in CANNOT for kind in kinds):
        pytest.fail(f"{peer} should be able to {operation} {kinds}")


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "opaque"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", PEERS)
def test_we_verify_theirs(peers: dict[str, Peer], peer: str, kind: str, detached: bool) -> None:
    try:
        der = peers[peer].sign(CONTENT, kind, detached=detached)
    except CannotDo:
        excused(peer, "sign", kind)
        return
    we_verify(der, detached=detached)


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "opaque"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", PEERS)
def test_they_verify_ours(peers: dict[str, Peer], peer: str, kind: str, detached: bool) -> None:
    der = we_sign(kind, detached=detached)
    content = CONTENT if detached else None
    we_verify(der, detached=detached)
    try:
        peers[peer].verify(der, content)
    except CannotDo:
        excused(peer, "verify", kind)
        with pytest.raises(CannotDo):  # they cannot make one either
            peers[peer].sign(CONTENT, kind, detached=detached)


@pytest.mark.parametrize("peer", PEERS)
def test_they_notice_a_changed_content(peers: dict[str, Peer], peer: str) -> None:
    with pytest.raises(CannotDo):
        peers[peer].verify(we_sign("rsa", detached=True), CONTENT.replace(b"Hello", b"Hallo"))


@pytest.mark.parametrize("gcm", [False, True], ids=["cbc", "gcm"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ed25519"])
@pytest.mark.parametrize("peer", PEERS)
def test_we_decrypt_theirs(peers: dict[str, Peer], peer: str, kind: str, gcm: bool) -> None:
    try:
        der = peers[peer].encrypt(CONTENT, kind, gcm=gcm)
    except CannotDo:
        excused(peer, "encrypt", kind, "gcm" if gcm else "cbc")
        return
    assert we_decrypt(der, kind) == CONTENT


@pytest.mark.parametrize("gcm", [False, True], ids=["cbc", "gcm"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ed25519"])
@pytest.mark.parametrize("peer", PEERS)
def test_they_decrypt_ours(peers: dict[str, Peer], peer: str, kind: str, gcm: bool) -> None:
    der = we_encrypt(kind, gcm=gcm)
    assert we_decrypt(der, kind) == CONTENT
    try:
        plain = peers[peer].decrypt(der, kind)
    except CannotDo:
        excused(peer, "decrypt", kind, "gcm" if gcm else "cbc")
        theirs = partial(peers["openssl"].encrypt, CONTENT, kind, gcm=gcm)
        with pytest.raises(CannotDo):  # nor OpenSSL's
            peers[peer].decrypt(theirs(), kind)
        return
    assert plain == CONTENT
