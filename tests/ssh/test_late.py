"""Who asks and where to is found out at the first look, once."""

from hsmagent.model import Destination, Peer, Process
from hsmagent.ssh.late import LateDestination, LatePeer

PEER = Peer(1000, Process(1, "ssh"), (Process(2, "zsh"),))


def test_a_peer_is_found_out_at_the_first_look_and_once() -> None:
    looked: list[int] = []

    def find_out() -> Peer:
        looked.append(1)
        return PEER

    late = LatePeer(find_out)
    assert late.unread
    assert not looked
    assert late.chain == "ssh ← zsh"
    assert not late.unread
    assert (late.uid, late.process, late.parents) == (1000, PEER.process, PEER.parents)
    late.read()
    assert looked == [1]


def test_what_is_known_needs_no_look() -> None:
    late = LateDestination(lambda: Destination("host", b"key"), host_key=b"key", forwarded=False)
    assert (late.host_key, late.forwarded) == (b"key", False)
    assert late.unread
    assert late.host == "host"
    assert not late.unread


def test_late_destinations_are_equal_as_others_are() -> None:
    def late(host: str) -> LateDestination:
        return LateDestination(lambda: Destination(host, b"key"), host_key=b"key", forwarded=False)

    assert late("host") == late("host")
    assert hash(late("host")) == hash(late("host"))
    assert late("host") != late("another")
