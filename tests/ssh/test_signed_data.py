import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.ssh import messages, signed_data, wire
from tests.ssh import builders, vectors


def data_of(during: str) -> bytes:
    request = messages.decode(vectors.message(during))
    assert isinstance(request, messages.SignRequest)
    return request.data


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


def test_sshsig_is_read() -> None:
    found = signed_data.read_sshsig(SSHSIG)
    assert found is not None
    assert (found.namespace, found.reserved, found.hash_name) == ("file", b"", "sha512")
    assert len(found.digest) == 64
    assert signed_data.read_sshsig(SSHSIG + b"x") is None
    assert signed_data.read_sshsig(SSHSIG[:-1]) is None
    assert signed_data.read_sshsig(LOGIN) is None


def test_a_certificate_is_read() -> None:
    found = signed_data.read_certificate(CERTIFICATE)
    assert found is not None
    assert (found.key_id, found.principals, found.is_host) == ("id", ("alice",), False)
    assert signed_data.read_certificate(CERTIFICATE + b"x") is None
    assert signed_data.read_certificate(CERTIFICATE[:-1]) is None


def sudo(message: int = 54, version: int = 101, method: str = "pam_ssh_agent_auth") -> bytes:
    """Return what pam_ssh_agent_auth 0.10 has signed for `sudo id`."""
    command = wire.u32(2) + wire.text("sudo") + wire.text("id")
    session = (
        wire.u32(version)
        + wire.string(bytes(range(40)))
        + b"".join(map(wire.text, ("alice", "alice", "sudo", "/home/alice")))
        + wire.string(command)
        + wire.text("host.example.org")
        + bytes(8)
    )
    return (
        wire.string(session)
        + bytes((message,))
        + b"".join(map(wire.text, ("alice", method, "publickey")))
        + b"\x01"
        + wire.text("ssh-ed25519")
        + wire.string(b"key")
    )


def test_the_request_of_pam_ssh_agent_auth_is_read() -> None:
    assert signed_data.read_sudo(sudo()) == signed_data.Sudo("alice", "sudo", "host.example.org")
    for other in (sudo(50), sudo(54, 100), sudo(method="ssh"), sudo() + b"\0", LOGIN, b""):
        assert signed_data.read_sudo(other) is None
    assert signed_data.read_userauth(sudo()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_nothing(data: bytes) -> None:
    assert signed_data.read_userauth(data) is None
    assert signed_data.read_sshsig(data) is None
    assert signed_data.read_certificate(data) is None
    assert signed_data.read_sudo(data) is None


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
        b"X: y\r\nContent-Type: text/plain\r\n\r\n",
        b"X: y\r\n",
        "Subject: für Mallory\r\n\r\n".encode(),
        b"\r\nPay Mallory.\r\n",
        b"\nPay Mallory.\n",
        b"From mallory\nX: y\n\n",
    ],
)
def test_a_mail_without_attributes_is_seen(data: bytes) -> None:
    assert signed_data.is_mail(data)


@pytest.mark.parametrize(
    "data",
    [
        LOGIN,
        SSHSIG,
        CERTIFICATE,
        userauth(),
        b"",
        b"data",
        b"no: line end",
        b"\n\0\n",
        b"X: \x01\r\nContent-Type: text/plain\r\n\r\nPay Mallory.\r\n",
        b"X: y\nz",
    ],
)
def test_what_is_no_mail_is_not_taken_for_one(data: bytes) -> None:
    assert not signed_data.is_mail(data)


def test_random_data_as_ssh_add_signs_it_is_not_taken_for_a_mail() -> None:
    source = random.Random(1)
    assert not any(signed_data.is_mail(source.randbytes(1024)) for _ in range(50_000))


def test_a_header_field_is_looked_for_in_linear_time() -> None:
    for data in (b"a" * 262144, b"a:" + b"b" * 262144, b"a" + b" " * 262144, b"a\t" * 131072):
        assert not signed_data.is_mail(data)


@given(st.sampled_from([b"\x30", b"\x31"]), st.binary(max_size=300))
def test_every_der_set_and_sequence_is_seen(tag: bytes, content: bytes) -> None:
    size = len(content)
    if size < 128:
        length = bytes((size,))
    else:
        length = b"\x81" + bytes((size,)) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    assert signed_data.is_one_der_value(tag + length + content)
    assert not signed_data.is_one_der_value(tag + length + content + b"x")


@pytest.mark.parametrize(
    ("data", "ends_so"),
    [
        (b"document" + b"\x04\x00\x01\x08\x00\x00" + b"\x04\xff" + (6).to_bytes(4, "big"), True),
        (b"document" + b"\x05\x00\x01\x08\x00\x00" + b"\x05\xff" + (6).to_bytes(8, "big"), True),
        (b"document" + b"\x06\x00\x01\x08" + bytes(4) + b"\x06\xff" + bytes(3) + b"\x08", True),
        (b"document\x04\xff" + (9).to_bytes(4, "big"), False),  # of more than is there
        (b"document\x03\xff" + (6).to_bytes(4, "big"), False),
        (b"document\x05\xff" + (6).to_bytes(4, "big"), False),
        (b"\x04\xff\0\0\0", False),
        (b"", False),
    ],
)
def test_the_end_of_what_openpgp_signs_is_seen(data: bytes, *, ends_so: bool) -> None:
    assert signed_data.ends_as_openpgp(data) is ends_so


def test_a_long_login_is_read_and_not_remembered() -> None:
    remembered = signed_data._after_session_id.cache_info
    for size, more in ((signed_data.KEPT, 0), (10, 1)):
        data = builders.userauth(b"s" * 32, b"\1" * size)
        before = remembered().currsize
        login = signed_data.read_userauth(data)
        assert login is not None
        assert (login.session_id, login.key_blob) == (b"s" * 32, b"\1" * size)
        assert remembered().currsize - before == more
