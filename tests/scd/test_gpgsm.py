"""The real gpgsm with the keys of a real token: it learns, lists, signs, verifies, decrypts."""

import subprocess
from email import message_from_bytes
from pathlib import Path

import pytest

from hsmagent.mail import keygrip
from hsmagent.mail.cms import der, oids, signers
from hsmagent.mail.spool import Memory
from tests.daemon.conftest import Start, module_config
from tests.parts.mail.gnupg import Gnupg, gnupg, keygrips, version
from tests.parts.mail.people import person, root
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.scd.conftest import ALLOWED, KINDS, address, allowing, owner, token_of

MESSAGE = b"Content-Type: text/plain\r\n\r\nHello\r\n"
EC_DECRYPTS = version() >= (2, 3)
# Its agent takes a card's RSA signature for a signed number, and so puts a zero before one whose
# first bit is set. OpenSSL refuses that; no answer of a scdaemon avoids it.
PUTS_A_ZERO_IN_FRONT = version() < (2, 3)


def openssl(*arguments: str | Path, data: bytes) -> bytes:
    done = subprocess.run(
        ["openssl", "cms", *map(str, arguments)], input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_it_learns_all_keys_and_the_ca(learned: Gnupg) -> None:
    listed = learned.gpgsm("--list-secret-keys", "--with-keygrip").decode().splitlines()
    assert keygrips(listed) == {keygrip.of(owner(kind).key) for kind in KINDS}
    assert b"Test Root" in learned.gpgsm("--list-keys")
    assert not learned.asked_by_pinentry


# gpgsm wants a hash as long as the curve.
@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("rsa", "sha256"),
        ("rsa", "sha384"),
        ("rsa", "sha512"),
        ("p256", "sha256"),
        ("p384", "sha384"),
    ],
)
def test_it_signs(learned: Gnupg, ca: Path, kind: str, digest: str) -> None:
    for count in range(64):
        content = MESSAGE + bytes(count)
        made = learned.gpgsm("--digest-algo", digest, "-u", address(kind), "--sign", data=content)
        learned.gpgsm("--verify", data=made)
        [info] = signers.read(Memory(made)).infos
        if kind != "rsa" or len(info.signature) == 256:
            break
        assert PUTS_A_ZERO_IN_FRONT
        assert (info.signature[0], info.signature[1] >> 7) == (0, 1)
    assert openssl("-verify", "-inform", "DER", "-CAfile", ca, data=made) == content
    assert not learned.asked_by_pinentry


def test_it_signs_with_the_other_curves(start: Start, tmp_path: Path, ca: Path) -> None:
    digests = {"p521": "sha512", "brainpool": "sha256"}
    agent = start(ALLOWED + module_config(token_of(tmp_path, {"p521": "01", "brainpool": "02"})))
    agent.unlock(PIN)
    with gnupg(agent.environment, root()) as made:
        made.learn()
        for kind, digest in digests.items():
            sign = ("--digest-algo", digest, "-u", address(kind), "--sign")
            done = made.gpgsm(*sign, data=MESSAGE)
            assert openssl("-verify", "-inform", "DER", "-CAfile", ca, data=done) == MESSAGE
        assert not made.asked_by_pinentry


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_it_decrypts(learned: Gnupg, tmp_path: Path, kind: str) -> None:
    certificate, _ = owner(kind).write(tmp_path, kind)
    made = openssl("-encrypt", "-aes256", "-binary", "-outform", "DER", certificate, data=MESSAGE)
    if kind == "rsa" or EC_DECRYPTS:
        assert learned.gpgsm("--decrypt", data=made) == MESSAGE
    else:
        assert learned.try_("gpgsm", "--batch", "--decrypt", data=made).returncode != 0
    assert not learned.asked_by_pinentry


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "brainpool"])
def test_keygrips_are_those_of_gpgsm(learned: Gnupg, kind: str) -> None:
    whose = person(kind, f"grip-{kind}@example.org", f"grip {kind}")
    learned.gpgsm("--import", data=whose.pem)
    listed = learned.gpgsm("--list-keys", "--with-keygrip", f"grip-{kind}@example.org")
    assert keygrip.of(whose.key) in listed.decode()


def test_mail_of_ours_to_ourselves_is_what_gpgsm_reads(
    start: Start, people_token: SoftHsm, learned: Gnupg
) -> None:
    """And a signed one does not tell others that they may write what gpgsm does not read."""
    agent = start(allowing("gnupg", "mail") + module_config(people_token))
    agent.unlock(PIN)
    mail = f"From: {address('rsa')}\nTo: {address('rsa')}\n\nHello\n"
    made = agent.hsmagent("smime", "encrypt", "--sign", stdin=mail).stdout
    assert "smime-type=enveloped-data" in made
    body = made.partition("\n\n")[2].encode()
    inside = learned.gpgsm("--decrypt", "--assume-base64", data=body)
    signature = message_from_bytes(inside).get_payload(1).get_payload(decode=True)  # type: ignore[union-attr]
    assert isinstance(signature, bytes)
    assert der.oid(oids.AES_256_CBC) in signature
    assert der.oid(oids.AES_256_GCM) not in signature
