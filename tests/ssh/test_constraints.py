import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import ProtocolError
from hsmagent.ssh import constraints, software, wire
from hsmagent.ssh.constraints import Constraints, Hop, HostKey, Way
from hsmagent.ssh.wire import Reader
from tests.ssh import builders, vectors

HOST = builders.blob_of(builders.ed25519_key())
TARGET = builders.hop("host.example", [(HOST, False)])
WAY = builders.way(builders.hop(), TARGET)
LIFETIME = b"\x01\x00\x00\x00\x3c"
CONFIRM = b"\x02"


def read(data: bytes, *, smartcard: bool = False) -> Constraints:
    return constraints.read(Reader(data), smartcard=smartcard)


def of_message(during: str) -> Constraints:
    reader = Reader(vectors.message(during)[1:])
    software.read(reader)
    return constraints.read(reader, smartcard=False)


def test_lifetime_and_confirm_as_ssh_add_sends_them() -> None:
    assert of_message("add constrained") == Constraints(lifetime=60, confirm=True)


def test_destinations_as_ssh_add_sends_them() -> None:
    first, second = of_message("add dest").ways
    host_key = first.target.keys[0]
    assert first == Way(Hop(), Hop("", "host.example", (host_key,)))
    assert second == Way(
        Hop("", "host.example", (host_key,)), Hop("alice", "host.example", (host_key,))
    )
    assert isinstance(host_key, HostKey)
    assert not host_key.is_authority


def test_no_constraints_are_none() -> None:
    assert read(b"") == constraints.NONE


@pytest.mark.parametrize(
    "data",
    [
        b"\x03\x00\x00\x00\x01",  # maximum of signatures, which only XMSS knew
        b"\x00",
        b"\xfe",
        builders.constraint("unknown@example.org", b""),
        builders.constraint("sk-provider@openssh.com", wire.text("/usr/lib/x.so")) * 2,
        LIFETIME + LIFETIME,
        CONFIRM + CONFIRM,
        builders.restrict(WAY) + builders.restrict(WAY),
        LIFETIME[:-1],
        b"\x01\x00\x00\x00\x00",
        builders.restrict(),
        builders.constraint("associated-certs-v00@openssh.com", b"\0" + wire.string(b"")),
    ],
)
def test_constraints_that_refuse_a_key(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


@pytest.mark.parametrize(
    "bad",
    [
        builders.way(builders.hop("from.example"), TARGET),  # an origin without keys
        builders.way(builders.hop("", [(HOST, False)]), TARGET),  # keys without a name
        builders.way(builders.hop("a", [(HOST, False)], user="bob"), TARGET),
        builders.way(builders.hop(), builders.hop("host.example")),
        builders.way(builders.hop(), builders.hop("", [(HOST, False)])),
        builders.way(builders.hop(), builders.hop("a", [(HOST, False)], user="u" * 257)),
        builders.way(builders.hop(), builders.hop("a", [(b"no key", False)])),
        wire.string(wire.string(builders.hop()) + wire.string(TARGET) + wire.string(b"more")),
        wire.string(wire.string(builders.hop()) + wire.string(TARGET)),
        wire.string(builders.way(builders.hop(), TARGET)[4:] + b"\0"),
    ],
    ids=lambda _: "bad",  # bytes with fresh keys would be other names in each process
)
def test_destinations_that_refuse_a_key(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(builders.restrict(WAY, bad))


@pytest.mark.parametrize("kind", ["ssh-mldsa44-ed25519@openssh.com", "ssh-dss"])
def test_a_host_key_of_a_kind_that_we_cannot_read_is_kept(kind: str) -> None:
    """`ssh-add -h host` sends all of a host's keys, and the others are to count."""
    strange = wire.text(kind) + wire.string(b"\1" * 1312)
    target = builders.hop("host.example", [(strange, False), (HOST, False), (strange, True)])
    [way] = read(builders.restrict(builders.way(builders.hop(), target))).ways
    assert way.target.keys == (
        HostKey(strange, is_authority=False),
        HostKey(HOST, is_authority=False),
        HostKey(strange, is_authority=True),
    )


def test_how_many_destinations_are_allowed() -> None:
    assert len(read(builders.restrict(*[WAY] * 1024)).ways) == 1024
    with pytest.raises(ProtocolError):
        read(builders.restrict(*[WAY] * 1025))


def test_associated_certificates_come_with_smartcards_only() -> None:
    blob = builders.certificate(builders.ed25519_key(), builders.ed25519_key(), host=False)
    # ssh-add sends every file it was given.
    plain = wire.string(HOST)
    for strange in ("ssh-mldsa44-ed25519@openssh.com", "ssh-dss-cert-v01@openssh.com"):
        plain += wire.string(wire.text(strange) + wire.string(b"1"))
    data = builders.constraint(
        "associated-certs-v00@openssh.com", b"\x01" + wire.string(plain + wire.string(blob))
    )
    found = read(LIFETIME + data, smartcard=True)
    assert found.certs_only
    assert list(found.certificates) == [blob]
    with pytest.raises(ProtocolError):
        read(data)
    with pytest.raises(ProtocolError):
        read(data[:-1], smartcard=True)


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_constraints_or_a_protocol_error(data: bytes, smartcard: bool) -> None:
    for each in (data, b"\xff" + wire.text(constraints.RESTRICT_DESTINATION) + wire.string(data)):
        try:
            read(each, smartcard=smartcard)
        except ProtocolError:
            continue
