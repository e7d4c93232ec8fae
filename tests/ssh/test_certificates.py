import base64
import time

import pytest

from hsmagent.errors import ProtocolError
from hsmagent.ssh import certificates, keys, wire
from tests.ssh import builders, vectors

NOW = time.time()
AUTHORITY = builders.ed25519_key()
HOST = builders.ed25519_key()


def openssh_certificates() -> list[bytes]:
    found = []
    for name in ("add cert ed25519", "add cert ecdsa", "add cert rsa"):
        reader = wire.Reader(vectors.message(name)[1:])
        assert certificates.is_certificate(reader.text())
        found.append(reader.string())
    return found


@pytest.mark.parametrize("blob", openssh_certificates())
def test_openssh_certificates_are_read_and_checked(blob: bytes) -> None:
    found = certificates.parse(blob)
    assert not found.body.is_host
    assert (found.body.key_id, found.body.principals) == ("id", ("alice",))
    assert found.body.valid_before == certificates.FOREVER
    assert keys.type_name(blob) == keys.type_name(found.plain) + keys.CERTIFICATE
    assert certificates.public_key(blob) == found.body.key


@pytest.mark.parametrize("blob", openssh_certificates())
def test_a_changed_certificate_is_refused(blob: bytes) -> None:
    for at in range(40, len(blob), 7):
        changed = bytearray(blob)
        changed[at] ^= 1
        with pytest.raises(ProtocolError):
            certificates.parse(bytes(changed))
    with pytest.raises(ProtocolError):
        certificates.parse(blob + b"\0")


def test_a_host_certificate_is_good_for_its_names() -> None:
    shown = certificates.parse(builders.certificate(AUTHORITY, HOST, principals=("*.a.example",)))
    assert shown.names_host("b.a.example", NOW)
    assert not shown.names_host("a.example", NOW)


def test_a_host_certificate_without_names_is_good_for_all() -> None:
    shown = certificates.parse(builders.certificate(AUTHORITY, HOST, principals=()))
    assert shown.names_host("any.example", NOW)


@pytest.mark.parametrize(
    "blob",
    [
        builders.certificate(AUTHORITY, HOST, host=False),
        builders.certificate(AUTHORITY, HOST, critical=wire.text("x") + wire.text("y")),
        builders.certificate(AUTHORITY, HOST, valid=(0, int(NOW) - 60)),
        builders.certificate(AUTHORITY, HOST, valid=(int(NOW) + 60, int(NOW) + 120)),
        builders.certificate(AUTHORITY, HOST, principals=("other.example",)),
    ],
    ids=["a user's", "critical option", "expired", "not yet valid", "other name"],
)
def test_a_host_certificate_that_is_not_good(blob: bytes) -> None:
    assert not certificates.parse(blob).names_host("host.example", NOW)


def test_certificates_of_a_file_and_nothing_else() -> None:
    blob = openssh_certificates()[0]
    line = b"ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(blob)
    content = b"# note\n\n" + line + b" me\nssh-ed25519 AAAA\n" + line[:-20] + b"\n" + line[:32]
    assert [found.blob for found in certificates.from_file(content)] == [blob]


def test_a_plain_key_is_no_certificate() -> None:
    with pytest.raises(ProtocolError):
        certificates.parse(builders.blob_of(HOST))


def test_known_hosts_speak_of_the_plain_key() -> None:
    blob = builders.certificate(AUTHORITY, HOST)
    own = certificates.parse(blob).plain
    assert certificates.plain(blob) == certificates.plain(own) == own
    for unreadable in (b"", blob[:-1], wire.string(b"ssh-nonsense")):
        assert certificates.plain(unreadable) == unreadable
