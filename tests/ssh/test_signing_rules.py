"""What a token's key signs freely, what is asked about, what never is: field by field."""

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import Refused
from hsmagent.model import Doubt, Purpose, PurposeKind, fingerprint
from hsmagent.ssh import signed_data, wire
from hsmagent.ssh.bindings import Binding
from hsmagent.ssh.signing_rules import Circumstances, judge
from tests.parts.agent.ssh_agent import token_signer
from tests.ssh import builders

ED25519 = builders.ed25519_key()
RSA = rsa.generate_private_key(65537, 2048)
HOST, AUTHORITY = builders.ed25519_key(), builders.ed25519_key()
HOST_KEY = builders.blob_of(HOST)
SESSION = hashlib.sha256(b"a key exchange").digest()
SHA2_256, SHA2_512 = 2, 4

BLOB = builders.blob_of(ED25519)
HERE = Circumstances(
    key=token_signer(ED25519).key,
    blob=BLOB,
    flags=0,
    bound=Binding(HOST_KEY, SESSION, forwarding=False),
    offers=lambda _blob: False,
    knows_host=lambda _host_key, _authority: False,
)
RSA_BLOB = builders.blob_of(RSA)
RSA_HERE = replace(HERE, key=token_signer(RSA).key, blob=RSA_BLOB, flags=SHA2_512)


def purpose(data: bytes, here: Circumstances = HERE) -> Purpose:
    return judge(data, signed_data.read_userauth(data), here)


def is_unknown(data: bytes, here: Circumstances = HERE) -> bool:
    return purpose(data, here).kind is PurposeKind.UNKNOWN


LOGIN = builders.userauth(SESSION, BLOB)
BOUND = builders.userauth(SESSION, BLOB, host_key=HOST_KEY)


# -- logins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [LOGIN, BOUND])
def test_a_login_is_free(data: bytes) -> None:
    assert purpose(data) == Purpose(PurposeKind.SSH, "log in as alice")


@pytest.mark.parametrize("size", [20, 28, 32, 48, 64])
def test_a_session_id_is_a_hash(size: int) -> None:
    session = hashlib.sha512(b"x").digest()[:size]
    assert not is_unknown(builders.userauth(session, BLOB))
    assert is_unknown(builders.userauth(session[1:], BLOB))
    text = b"Dear Bob, pay Mallory"
    assert is_unknown(builders.userauth((text * 4)[:size], BLOB))


@pytest.mark.parametrize("user", ["a", "DOM\\alice", "alice@realm.org", "zoë", "a" * 128])
def test_a_users_name_is_a_name(user: str) -> None:
    assert not is_unknown(builders.userauth(SESSION, BLOB, user=user))


@pytest.mark.parametrize("user", ["", "a b", "a\nb", "a\tb", "a\xa0b", "a\x1b[m", "a" * 129])
def test_what_is_no_users_name(user: str) -> None:
    assert is_unknown(builders.userauth(SESSION, BLOB, user=user))


@pytest.mark.parametrize(
    ("algorithm", "flags", "free"),
    [
        ("rsa-sha2-256", SHA2_256, True),
        ("rsa-sha2-512", SHA2_512, True),
        ("rsa-sha2-512", SHA2_256, False),
        ("ssh-rsa", SHA2_256, False),
        ("ssh-ed25519", SHA2_256, False),
        ("ssh-rsa", 0, False),
        ("rsa-sha2-256", 0, False),
        ("rsa-sha2-256-cert-v01@openssh.com", SHA2_256, False),
    ],
)
def test_the_algorithm_fits_key_and_flags(algorithm: str, flags: int, *, free: bool) -> None:
    data = builders.userauth(SESSION, RSA_BLOB, algorithm=algorithm)
    assert is_unknown(data, replace(RSA_HERE, flags=flags)) is not free


def test_sha_1_is_told() -> None:
    data = builders.userauth(SESSION, RSA_BLOB, algorithm="ssh-rsa")
    summary = purpose(data, replace(RSA_HERE, flags=0)).summary
    assert summary.startswith("log in as alice, with SHA-1")


def test_the_key_is_the_one_that_signs() -> None:
    assert is_unknown(builders.userauth(SESSION, HOST_KEY))
    assert is_unknown(builders.userauth(SESSION, b"key"))


CERTIFICATE = builders.certificate(AUTHORITY, ED25519, host=False, principals=["alice"])
CERT_LOGIN = builders.userauth(SESSION, CERTIFICATE, algorithm="ssh-ed25519-cert-v01@openssh.com")


def test_a_certificate_that_the_agent_lists_is_free() -> None:
    here = replace(HERE, offers=lambda blob: blob == CERTIFICATE)
    assert purpose(CERT_LOGIN, here) == Purpose(PurposeKind.SSH, "log in as alice")


def test_another_certificate_of_the_key_is_asked_about() -> None:
    found, name = purpose(CERT_LOGIN), fingerprint(CERTIFICATE)
    assert found.kind is PurposeKind.SSH
    assert found.doubt == Doubt(PurposeKind.UNKNOWN, f"certificate {name}")
    assert name in found.summary
    assert "'id'" in found.summary


def test_a_certificate_of_another_key_or_one_that_is_not_sound_is_unknown() -> None:
    algorithm = "ssh-ed25519-cert-v01@openssh.com"
    for blob in (
        builders.certificate(AUTHORITY, HOST, host=False),
        CERTIFICATE[:-1] + bytes((CERTIFICATE[-1] ^ 1,)),
    ):
        assert is_unknown(builders.userauth(SESSION, blob, algorithm=algorithm))
    assert is_unknown(builders.userauth(SESSION, CERTIFICATE, algorithm="ssh-ed25519"))


@pytest.mark.parametrize(
    "bound",
    [
        None,
        Binding(builders.blob_of(AUTHORITY), SESSION, forwarding=False),
        Binding(HOST_KEY, bytes(32), forwarding=False),
    ],
)
def test_a_host_key_that_was_not_verified_is_asked_about(bound: Binding | None) -> None:
    found = purpose(BOUND, replace(HERE, bound=bound))
    assert found.kind is PurposeKind.SSH
    name = fingerprint(HOST_KEY)
    assert found.doubt == Doubt(PurposeKind.UNKNOWN, f"host {name}")
    assert found.summary == f"log in as alice to a host whose key ({name}) could not be verified"


HOST_CERTIFICATE = builders.certificate(AUTHORITY, HOST)


@pytest.mark.parametrize(
    ("host_key", "authority"),
    [(RSA_BLOB, b""), (HOST_CERTIFICATE, builders.blob_of(AUTHORITY))],
)
def test_a_host_key_with_room_for_text_must_be_in_known_hosts(
    host_key: bytes, authority: bytes
) -> None:
    data = builders.userauth(SESSION, BLOB, host_key=host_key)
    here = replace(HERE, bound=Binding(host_key, SESSION, forwarding=False))
    found = purpose(data, here)
    assert found.doubt == Doubt(PurposeKind.UNKNOWN, f"host {fingerprint(host_key)}")
    assert "is not in known_hosts" in found.summary
    known = replace(here, knows_host=lambda *asked: asked == (host_key, authority))
    assert purpose(data, known) == Purpose(PurposeKind.SSH, "log in as alice")


def test_a_users_certificate_is_no_hosts() -> None:
    host_key = builders.certificate(AUTHORITY, HOST, host=False)
    here = replace(
        HERE,
        bound=Binding(host_key, SESSION, forwarding=False),
        knows_host=lambda _host_key, authority: bool(authority),
    )
    assert purpose(builders.userauth(SESSION, BLOB, host_key=host_key), here).doubt


@pytest.mark.parametrize("user", ["alice", "DOM\\a.b-c_d+e@realm.org"])
def test_a_user_is_shown_as_it_is(user: str) -> None:
    assert purpose(builders.userauth(SESSION, BLOB, user=user)).summary == f"log in as {user}"


def test_a_user_that_could_be_read_as_more_is_in_quotes() -> None:
    found = purpose(builders.userauth(SESSION, BLOB, user="a'at'b"))
    assert found.summary == "log in as \"a'at'b\""


# -- SSHSIG ----------------------------------------------------------------------------------


def sshsig(
    namespace: bytes = b"file",
    reserved: bytes = b"",
    hash_name: bytes = b"sha512",
    digest: bytes = hashlib.sha512().digest(),
) -> bytes:
    parts = (namespace, reserved, hash_name, digest)
    return b"SSHSIG" + b"".join(map(wire.string, parts))


def test_an_sshsig_is_free() -> None:
    assert purpose(sshsig()) == Purpose(PurposeKind.SSHSIG, "sign a message for 'file' (sha512)")
    found = purpose(sshsig(b"git", hash_name=b"sha256", digest=bytes(32)))
    assert found == Purpose(PurposeKind.GIT, "sign a git commit or tag (sha256)")
    assert not is_unknown(sshsig(b"a" * 128))


@pytest.mark.parametrize(
    "data",
    [
        sshsig(b""),
        sshsig(b"a b"),
        sshsig(b"a\nb"),
        sshsig(b"\xff"),
        sshsig(b"a" * 129),
        sshsig(reserved=b"x"),
        sshsig(hash_name=b"sha256"),
        sshsig(hash_name=b"sha384", digest=bytes(48)),
        sshsig(digest=bytes(32)),
        sshsig(digest=bytes(65)),
        sshsig(digest=b"Dear Bob, pay Mallory".ljust(64, b"\0")),
        sshsig(digest=bytes(58) + b"\x04\xff" + (60).to_bytes(4, "big")),
        sshsig() + b"x",
    ],
)
def test_what_is_almost_an_sshsig_is_unknown(data: bytes) -> None:
    assert is_unknown(data)


# -- certificates, sudo, and everything else -------------------------------------------------


def to_be_certified(authority: object = ED25519) -> bytes:
    blob = builders.certificate(authority, HOST, valid=(1_600_000_000, 1_893_456_000))  # type: ignore[arg-type]
    return blob[: -len(wire.string(builders.sign(ED25519, b"")))]


def test_a_certificate_tells_which_key_for_whom_and_how_long() -> None:
    assert purpose(to_be_certified()) == Purpose(
        PurposeKind.SSH_CERT,
        "certify the host key 'id' for host.example, valid until 2030-01-01 00:00 UTC "
        f"({fingerprint(HOST_KEY)}, from 2020-09-13 12:26 UTC)",
    )


def test_a_certificate_of_another_authority_is_unknown() -> None:
    assert is_unknown(to_be_certified(AUTHORITY))


def test_sudo_is_asked_about_whatever_is_allowed() -> None:
    session = wire.u32(101) + b"".join(
        map(wire.text, ("cookie", "alice", "alice", "sudo", "/", "", "host.example.org"))
    )
    data = wire.string(session + bytes(8)) + b"\x36"
    data += b"".join(map(wire.text, ("alice", "pam_ssh_agent_auth", "publickey"))) + b"\x01"
    data += wire.text("ssh-ed25519") + wire.string(BLOB)
    asked = Purpose(PurposeKind.UNKNOWN, "let alice use sudo on host.example.org", Doubt())
    assert purpose(data) == asked
    assert purpose(data, replace(RSA_HERE, flags=0)) == asked, "with SHA-1 as well"


@pytest.mark.parametrize(
    "data", [b"\x31\x03abc", b"\x30\x00", b"Content-Type: text/plain\r\n\r\nPay!\r\n", b"\n\nPay!"]
)
def test_what_is_a_mails_is_never_signed(data: bytes) -> None:
    with pytest.raises(Refused):
        purpose(data)
    software = replace(HERE, key=replace(HERE.key, token=None))
    assert is_unknown(data, software)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_printable_purpose(data: bytes) -> None:
    try:
        found = purpose(data)
    except Refused:
        return
    assert found.summary.isprintable()
    assert found.kind is PurposeKind.UNKNOWN
