"""Session bindings, and the destination rules of OpenSSH's identity_permitted, one by one."""

import pytest

from hsmagent.errors import ProtocolError, Refused
from hsmagent.ssh import constraints, messages
from hsmagent.ssh.bindings import Bindings
from hsmagent.ssh.constraints import Way
from hsmagent.ssh.signed_data import read_userauth
from hsmagent.ssh.wire import Reader
from tests.ssh import builders, vectors

A, B, C, AUTHORITY = (builders.ed25519_key() for _ in range(4))
KEY = builders.blob_of(builders.ed25519_key())
HERE = builders.hop()


def at(host: object, name: str = "h", user: str = "") -> bytes:
    assert isinstance(host, type(A))
    return builders.hop(name, [(builders.blob_of(host), False)], user)


def ways(*pairs: tuple[bytes, bytes]) -> tuple[Way, ...]:
    data = builders.restrict(*[builders.way(origin, target) for origin, target in pairs])
    return constraints.read(Reader(data), smartcard=False).ways


def bound(*contents: bytes) -> Bindings:
    bindings = Bindings()
    for each in contents:
        bindings.bind(each)
    return bindings


def may_use(
    bindings: Bindings,
    permitted: tuple[Way, ...],
    session_id: bytes = b"2",
    host_key: bytes | None = None,
    user: str = "alice",
) -> bool:
    data = builders.userauth(session_id, KEY, user=user, host_key=host_key)
    try:
        bindings.check_use(permitted, read_userauth(data), KEY)
    except Refused:
        return False
    return True


TO_A = ways((HERE, at(A)))
TO_B_BY_A = ways((HERE, at(A)), (at(A), at(B)))


# -- binding ---------------------------------------------------------------------------------


def test_a_binding_of_openssh_is_verified() -> None:
    message = messages.decode(vectors.message("login"))
    extension = messages.decode(vectors.messages("login")[0])
    assert isinstance(message, messages.SignRequest)
    assert isinstance(extension, messages.Extension)
    bindings = bound(extension.contents)
    assert bindings.last is not None
    login = read_userauth(message.data)
    assert login is not None
    assert login.session_id == bindings.last.session_id
    assert login.host_key == bindings.last.host_key


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        builders.binding(A, b"1", signed=builders.sign(B, b"1")),
        builders.binding(A, b"1", signed=builders.sign(A, b"2")),
        builders.binding(A, b"1", host_key=builders.blob_of(B)),
        builders.binding(A, b"1", host_key=b"no key"),
        builders.binding(A, b"1")[:-1],
        builders.binding(A, b"1") + b"\0",
        builders.binding(A, b"1" * 129),
        builders.binding(A, b""),
    ],
)
def test_a_binding_that_is_not_sound_taints_the_connection(contents: bytes) -> None:
    bindings = Bindings()
    assert bindings.may_see(TO_A)
    with pytest.raises(ProtocolError):
        bindings.bind(contents)
    assert bindings.attempted
    assert not bindings.may_see(TO_A)
    assert bindings.may_see(()), "keys without constraints stay"


def test_a_session_id_may_have_128_bytes() -> None:
    assert bound(builders.binding(A, b"1" * 128)).last is not None


def test_nothing_follows_a_binding_for_a_login() -> None:
    bindings = bound(builders.binding(A, b"1"))
    with pytest.raises(ProtocolError):
        bindings.bind(builders.binding(B, b"2"))
    with pytest.raises(ProtocolError):
        bindings.bind(builders.binding(A, b"1"))


def test_the_same_session_again_is_fine_with_the_same_key_only() -> None:
    bindings = bound(builders.binding(A, b"1", forwarding=True))
    bindings.bind(builders.binding(A, b"1", forwarding=True))
    with pytest.raises(ProtocolError):
        bindings.bind(builders.binding(B, b"1", forwarding=True))
    bindings.bind(builders.binding(A, b"2", forwarding=True))


def test_at_most_16_bindings() -> None:
    bindings = bound(*[builders.binding(A, bytes((n,)), forwarding=True) for n in range(16)])
    bindings.bind(builders.binding(A, b"\0", forwarding=True))
    with pytest.raises(ProtocolError):
        bindings.bind(builders.binding(A, b"\x10", forwarding=True))


# -- one hop ---------------------------------------------------------------------------------


def test_unbound_a_constrained_key_is_listed_but_not_usable() -> None:
    assert Bindings().may_see(TO_A)
    assert not may_use(Bindings(), TO_A, b"1")


def test_a_constrained_key_is_good_for_its_host() -> None:
    bindings = bound(builders.binding(A, b"2"))
    assert bindings.may_see(TO_A)
    assert may_use(bindings, TO_A)
    assert may_use(bindings, TO_A, host_key=builders.blob_of(A))


def test_a_constrained_key_is_hidden_from_another_host() -> None:
    bindings = bound(builders.binding(B, b"2"))
    assert not bindings.may_see(TO_A)
    assert not may_use(bindings, TO_A)


def test_the_session_must_be_the_one_bound_last() -> None:
    assert not may_use(bound(builders.binding(A, b"2")), TO_A, b"1")


def test_the_host_key_in_the_login_must_be_the_bound_one() -> None:
    bindings = bound(builders.binding(A, b"2"))
    assert not may_use(bindings, TO_A, host_key=builders.blob_of(B))


def test_only_logins_of_the_key_itself_are_signed() -> None:
    bindings = bound(builders.binding(A, b"2"))
    other = builders.blob_of(builders.ed25519_key())
    for login in (
        None,
        read_userauth(builders.userauth(b"2", other)),
        read_userauth(builders.userauth(b"2", KEY, algorithm="rsa-sha2-256")),
    ):
        with pytest.raises(Refused):
            bindings.check_use(TO_A, login, KEY)


def test_users_are_matched_by_pattern() -> None:
    bindings = bound(builders.binding(A, b"2"))
    permitted = ways((HERE, at(A, user="al*")))
    assert may_use(bindings, permitted)
    assert not may_use(bindings, permitted, user="bob")
    assert bindings.may_see(permitted), "seeing asks for no user"


# -- more hops -------------------------------------------------------------------------------


def test_a_forwarded_key_is_hidden_where_it_leads_nowhere() -> None:
    bindings = bound(builders.binding(A, b"1", forwarding=True))
    assert not bindings.may_see(TO_A)
    assert bindings.may_see(TO_B_BY_A)


def test_a_second_hop_needs_the_host_key_in_the_login() -> None:
    bindings = bound(builders.binding(A, b"1", forwarding=True), builders.binding(B, b"2"))
    assert bindings.may_see(TO_B_BY_A)
    assert may_use(bindings, TO_B_BY_A, host_key=builders.blob_of(B))
    assert not may_use(bindings, TO_B_BY_A, host_key=None)
    assert not may_use(bindings, TO_B_BY_A, host_key=builders.blob_of(A))


def test_a_login_over_the_forwarding_hop_itself_is_refused() -> None:
    bindings = bound(builders.binding(A, b"2", forwarding=True))
    assert not may_use(bindings, TO_B_BY_A, host_key=builders.blob_of(A))
    assert not may_use(bindings, TO_B_BY_A)


def test_every_hop_must_be_permitted() -> None:
    over = bound(
        builders.binding(A, b"1", forwarding=True),
        builders.binding(C, b"3", forwarding=True),
        builders.binding(B, b"2"),
    )
    assert not may_use(over, TO_B_BY_A, host_key=builders.blob_of(B))
    all_hops = ways((HERE, at(A)), (at(A), at(C)), (at(C), at(B)))
    assert may_use(over, all_hops, host_key=builders.blob_of(B))


def test_a_way_from_here_does_not_count_from_elsewhere() -> None:
    bindings = bound(builders.binding(A, b"1", forwarding=True), builders.binding(B, b"2"))
    permitted = ways((HERE, at(A)), (HERE, at(B)))
    assert not may_use(bindings, permitted, host_key=builders.blob_of(B))


def test_a_way_from_elsewhere_does_not_count_from_here() -> None:
    bindings = bound(builders.binding(B, b"2"))
    permitted = ways((at(A), at(B)))
    assert not bindings.may_see(permitted)
    assert not may_use(bindings, permitted)


# -- host certificates -----------------------------------------------------------------------


def test_a_certified_host_is_matched_by_its_authority_and_name() -> None:
    shown = builders.certificate(AUTHORITY, A)
    bindings = bound(builders.binding(A, b"2", host_key=shown))
    by_authority = [(builders.blob_of(AUTHORITY), True)]
    assert may_use(bindings, ways((HERE, builders.hop("host.example", by_authority))))
    assert not may_use(bindings, ways((HERE, builders.hop("other.example", by_authority))))
    by_another = [(builders.blob_of(C), True)]
    assert not may_use(bindings, ways((HERE, builders.hop("host.example", by_another))))
    plain_only = [(builders.blob_of(AUTHORITY), False), (builders.blob_of(A), False)]
    assert not may_use(bindings, ways((HERE, builders.hop("host.example", plain_only))))


def test_an_authority_is_not_a_host() -> None:
    bindings = bound(builders.binding(A, b"2"))
    assert not may_use(bindings, ways((HERE, builders.hop("h", [(builders.blob_of(A), True)]))))
