import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.model import Purpose, PurposeKind
from hsmagent.ssh import messages, signed_data, wire
from tests.ssh import vectors


def data_of(during: str) -> bytes:
    request = messages.decode(vectors.message(during))
    assert isinstance(request, messages.SignRequest)
    return request.data


def purpose(data: bytes) -> Purpose:
    return signed_data.purpose_of(data, signed_data.read_userauth(data))


LOGIN = data_of("login")
SSHSIG = data_of("sshsig")
CERTIFICATE = data_of("certsign")


def test_a_login_is_read() -> None:
    login = signed_data.read_userauth(LOGIN)
    request = messages.decode(vectors.message("login"))
    assert isinstance(request, messages.SignRequest)
    assert login is not None
    assert (login.user, login.algorithm) == ("root", "ssh-ed25519")
    assert login.key_blob == request.key_blob
    assert login.host_key is not None, "OpenSSH 9.2 logs in with hostbound"
    assert signed_data.names_key(login, request.key_blob)
    assert not signed_data.names_key(login, login.host_key)
    assert purpose(LOGIN) == Purpose(PurposeKind.SSH, "log in as root")


def test_a_plain_login_has_no_host_key() -> None:
    plain = userauth(method="publickey", host_key=None)
    login = signed_data.read_userauth(plain)
    assert login is not None
    assert login.host_key is None


def userauth(
    *,
    number: int = 50,
    method: str = signed_data.HOSTBOUND,
    service: str = "ssh-connection",
    user: str = "alice",
    follows: int = 1,
    session_id: bytes = b"id",
    host_key: bytes | None = b"host",
) -> bytes:
    return (
        wire.string(session_id)
        + bytes((number,))
        + b"".join(map(wire.text, (user, service, method)))
        + bytes((follows,))
        + wire.text("ssh-ed25519")
        + wire.string(b"key")
        + (b"" if host_key is None else wire.string(host_key))
    )


@pytest.mark.parametrize(
    "data",
    [
        userauth(number=51),
        userauth(method="password"),
        userauth(method="publickey"),  # and a host key after it
        userauth(host_key=None),  # hostbound without one
        userauth(service="ssh-userauth"),
        userauth(follows=0),
        userauth(follows=2),
        userauth(session_id=b""),
        userauth() + b"\0",
        b"",
    ],
)
def test_what_is_almost_a_login_is_not_one(data: bytes) -> None:
    assert signed_data.read_userauth(data) is None
    assert purpose(data).kind is PurposeKind.UNKNOWN


def test_rsa_algorithms_go_with_rsa_keys() -> None:
    blob = wire.text("ssh-rsa-cert-v01@openssh.com") + b"rest"
    for algorithm, fits in {
        "rsa-sha2-256-cert-v01@openssh.com": True,
        "ssh-rsa-cert-v01@openssh.com": True,
        "rsa-sha2-256": False,
        "ssh-ed25519": False,
    }.items():
        login = signed_data.UserAuth(b"id", "alice", algorithm, blob, None)
        assert signed_data.names_key(login, blob) is fits


def test_sshsig_tells_namespace_and_hash() -> None:
    assert purpose(SSHSIG) == Purpose(PurposeKind.SSHSIG, "sign a message for 'file' (sha512)")
    git = b"SSHSIG" + b"".join(map(wire.string, (b"git", b"", b"sha256", bytes(32))))
    assert purpose(git) == Purpose(PurposeKind.GIT, "sign a git commit or tag (sha256)")
    assert purpose(git + b"x").kind is PurposeKind.UNKNOWN
    assert purpose(git[:-1]).kind is PurposeKind.UNKNOWN


def test_a_certificate_tells_whom_and_how_long() -> None:
    assert purpose(CERTIFICATE) == Purpose(
        PurposeKind.SSH_CERT,
        "certify the user key 'id' for alice, valid until 2030-01-01 00:00 UTC",
    )
    assert purpose(CERTIFICATE + b"x").kind is PurposeKind.UNKNOWN


def test_names_are_made_safe_to_show() -> None:
    nasty = "a\u202e\x1b[31m" + "b" * 500
    summary = purpose(userauth(user=nasty)).summary
    assert summary.isprintable()
    assert len(summary) < 100


@pytest.mark.parametrize("user", ["alice", "DOM\\a.b-c_d+e@realm.org"])
def test_a_user_is_shown_as_it_is(user: str) -> None:
    assert purpose(userauth(user=user)).summary == f"log in as {user}"


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("git at git.example.org", "'git at git.example.org'"),
        ("a' at b 'c", "\"a' at b 'c\""),
        ("", "''"),
        ("a\n", "'a\N{REPLACEMENT CHARACTER}'"),
    ],
)
def test_a_user_that_could_be_read_as_more_is_in_quotes(user: str, shown: str) -> None:
    assert purpose(userauth(user=user)).summary == f"log in as {shown}"


@given(st.binary(max_size=200))
def test_any_bytes_have_a_printable_purpose(data: bytes) -> None:
    found = purpose(data)
    assert found.summary.isprintable()
    assert found.kind is PurposeKind.UNKNOWN


# -- across protocols ------------------------------------------------------------------------

ATTRIBUTES = base64.b64decode(
    # signed attributes as S/MIME signs them: content type, signing time, message digest
    "MWkwGAYJKoZIhvcNAQkDMQsGCSqGSIb3DQEHATAcBgkqhkiG9w0BCQUxDxcNMjYwMTAxMDAwMDAwWjAvBgkqhkiG9w0B"
    "CQQxIgQg47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)


@pytest.mark.parametrize(
    "data",
    [
        ATTRIBUTES,
        b"\x30\x00",
        b"\x31\x00",
        b"\x30\x81\x80" + bytes(128),
        b"\x30\x82\x01\x00" + bytes(256),
        b"\x30\x83\x01\x00\x00" + bytes(65536),
        b"\x30\x81\x01\x00",  # longer than DER allows, which readers of BER accept
        b"\x30\x80\x04\x01x\x00\x00",  # indefinite
    ],
)
def test_one_der_value_is_seen(data: bytes) -> None:
    assert signed_data.is_one_der_value(data)


@pytest.mark.parametrize(
    "data",
    [
        ATTRIBUTES + b"\0",
        ATTRIBUTES[:-1],
        b"\x02\x01\x01",
        b"\x30",
        b"",
        LOGIN,
        SSHSIG,
        CERTIFICATE,
        userauth(),
    ],
)
def test_what_ssh_signs_is_not_one_der_value(data: bytes) -> None:
    assert not signed_data.is_one_der_value(data)


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Type: text/plain\r\n\r\nPay Mallory.\r\n",
        b"content-type: text/plain\n\nPay Mallory.\n",
        b"X:\r\n\r\n" + bytes(100),
        b"X : folded\r\n more\r\n\r\n",
        "Subject: für Mallory\r\n\r\n".encode(),
        b"\r\nPay Mallory.\r\n",
        b"\nPay Mallory.\n",
        b"From mallory\nX: y\n\n",
    ],
)
def test_what_could_be_a_mail_without_attributes_is_seen(data: bytes) -> None:
    assert signed_data.belongs_elsewhere(data, forwarded=False)
    assert signed_data.belongs_elsewhere(data, forwarded=True)


@pytest.mark.parametrize(
    "data",
    [
        b"X: \x01\r\nContent-Type: text/plain\r\n\r\nPay Mallory.\r\n",
        b"X:\0\rContent-Type: text/plain\r\rPay Mallory.\r",
        b"no: line end",
    ],
)
def test_over_a_hop_what_lenient_readers_take_for_a_mail_is_seen_too(data: bytes) -> None:
    assert signed_data.belongs_elsewhere(data, forwarded=True)
    assert not signed_data.belongs_elsewhere(data, forwarded=False)


@pytest.mark.parametrize(
    "data", [LOGIN, SSHSIG, CERTIFICATE, userauth(), b"", b"data", b"no: line end", b"\n\0\n"]
)
def test_what_ssh_signs_could_not_be_a_mail(data: bytes) -> None:
    assert not signed_data.belongs_elsewhere(data, forwarded=False)


@pytest.mark.parametrize("data", [LOGIN, SSHSIG, CERTIFICATE, userauth()])
def test_what_ssh_signs_could_not_be_a_mail_over_a_hop_either(data: bytes) -> None:
    assert not signed_data.belongs_elsewhere(data, forwarded=True)


def test_random_data_as_ssh_add_signs_it_is_not_taken_for_a_mail() -> None:
    source = random.Random(1)
    assert not any(
        signed_data.belongs_elsewhere(source.randbytes(1024), forwarded=False) for _ in range(5000)
    )


def test_a_header_field_is_looked_for_in_linear_time() -> None:
    for data in (b"a" * 262144, b"a:" + b"b" * 262144, b"a" + b" " * 262144, b"a\t" * 131072):
        assert not signed_data.could_be_mail(data, lenient=False)
    for data in (b"a" * 262144, b"a" + b" " * 262144, b"a\t" * 131072):
        assert not signed_data.could_be_mail(data, lenient=True)


@given(st.sampled_from([b"\x30", b"\x31"]), st.binary(max_size=300))
def test_every_der_set_and_sequence_is_seen(tag: bytes, content: bytes) -> None:
    size = len(content)
    if size < 128:
        length = bytes((size,))
    else:
        length = b"\x81" + bytes((size,)) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    assert signed_data.is_one_der_value(tag + length + content)
    assert not signed_data.is_one_der_value(tag + length + content + b"x")
