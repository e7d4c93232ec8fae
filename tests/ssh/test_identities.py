from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hsmagent.errors import Refused
from hsmagent.model import Signer, TokenId
from hsmagent.ssh import certificates, keys
from hsmagent.ssh.constraints import Constraints
from hsmagent.ssh.identities import NEVER, Choice, Identities, Identity, comment_of, offers
from hsmagent.ssh.signer import RawSigner
from hsmagent.ssh.software import SoftwareSigner
from tests.parts.agent.ssh_agent import token_signer
from tests.ssh import builders

PRIVATE = [builders.ed25519_key() for _ in range(3)]
BLOBS = [builders.blob_of(private) for private in PRIVATE]
SIGNERS = [token_signer(private, f"key {n}") for n, private in enumerate(PRIVATE)]


class Scene:
    def __init__(self, signers: list[SoftwareSigner] | None = None) -> None:
        self.now = 0.0
        self.signers: list[Signer] = list(SIGNERS if signers is None else signers)
        self.table = Identities(lambda: self.signers, lambda: self.now)

    @property
    def comments(self) -> list[str]:
        return [identity.comment for identity in self.table.listed()]


def software(number: int, comment: str = "soft", expires: float = NEVER) -> Identity:
    return Identity(BLOBS[number], comment, RawSigner(SIGNERS[number]), expires=expires)


def test_comments_are_the_objects_label_then_the_tokens() -> None:
    assert Scene().comments == ["key 0 (work)", "key 1 (work)", "key 2 (work)"]
    key = SIGNERS[0].key
    assert comment_of(replace(key, label="")) == "work"
    nasty = TokenId("m", "a\u202e\x1b", "1", "x")
    assert comment_of(replace(key, token=nasty)).isprintable()


def test_tokens_come_and_go_when_told() -> None:
    scene = Scene()
    assert len(scene.table.listed()) == 3
    version = scene.table.version
    scene.signers.pop()
    assert len(scene.table.listed()) == 3
    assert scene.table.version == version
    scene.table.changed()
    assert scene.table.version != version
    assert scene.table.find(BLOBS[2]) is None


def test_a_key_that_ssh_cannot_name_or_that_may_not_sign_is_left_out() -> None:
    odd = token_signer(ec.generate_private_key(ec.BrainpoolP256R1()))
    mute = token_signer(PRIVATE[0])
    mute.key = replace(mute.key, can_sign=False)
    assert Scene([odd, mute]).table.listed() == []


def test_the_same_key_twice_is_listed_once() -> None:
    assert Scene([SIGNERS[0], SIGNERS[0]]).comments == ["key 0 (work)"]


def test_an_added_key_replaces_a_tokens_and_leaves_it_again() -> None:
    scene = Scene()
    scene.table.add([software(0)])
    assert sorted(scene.comments) == ["key 1 (work)", "key 2 (work)", "soft"]
    scene.table.add([software(0, "again")])
    assert "again" in scene.comments
    scene.table.remove(BLOBS[0], keep_rules=False)
    assert "key 0 (work)" in scene.comments
    with pytest.raises(Refused):
        scene.table.remove(BLOBS[0], keep_rules=False)


def test_a_lifetime_ends_on_time_for_lists_and_for_signing() -> None:
    scene = Scene([])
    scene.table.add([software(0, expires=10.0), software(1)])
    version = scene.table.version
    scene.now = 9.9
    assert scene.table.version == version
    assert scene.table.find(BLOBS[0]) is not None
    scene.now = 10.0
    assert scene.table.version != version
    assert scene.table.find(BLOBS[0]) is None
    assert len(scene.table.listed()) == 1


def test_certificates_stand_beside_their_key() -> None:
    authority = builders.ed25519_key()
    blob = builders.certificate(authority, PRIVATE[1], host=False)
    scene = Scene()
    scene.table.configure((), [certificates.parse(blob)])
    assert [identity.blob for identity in scene.table.listed()] == [
        BLOBS[0],
        BLOBS[1],
        blob,
        BLOBS[2],
    ]
    found = scene.table.find(blob)
    assert found is not None
    assert found.signer == RawSigner(SIGNERS[1])


def test_certs_only_leaves_the_plain_key_out() -> None:
    blob = builders.certificate(builders.ed25519_key(), PRIVATE[1], host=False)
    parsed = certificates.parse(blob)
    assert [each.blob for each in offers(SIGNERS[1], [parsed], Constraints(certs_only=True))] == [
        blob
    ]
    assert offers(SIGNERS[0], [parsed], Constraints(certs_only=True)) == []


def test_choices_order_rename_and_hide() -> None:
    scene = Scene()
    scene.table.configure(
        [
            Choice(lambda key: keys.blob_of(key.spki) == BLOBS[1], name="work laptop"),
            Choice(lambda key: key.label == "key 2"),
            Choice(lambda key: key.label == "key 0", hide=True),
            Choice(lambda _: True, hide=True),
        ],
        (),
    )
    assert scene.comments == ["work laptop", "key 2 (work)"]
    assert scene.table.find(BLOBS[0]) is not None, "hidden, but it signs when named"


def test_at_most_16_providers() -> None:
    scene = Scene([])
    for number in range(16):
        scene.table.check_room(f"p{number}")
        scene.table.add_provider(f"p{number}", [])
    scene.table.check_room("p0")
    with pytest.raises(Refused):
        scene.table.check_room("p16")
    assert scene.table.remove_provider("p0", keep_rules=False)
    assert not scene.table.remove_provider("p0", keep_rules=False)
    scene.table.check_room("p16")


def test_adding_a_provider_again_replaces_its_keys() -> None:
    scene = Scene([])
    scene.table.add_provider("p", offers(SIGNERS[0], (), provider="p"))
    scene.table.add_provider("p", offers(SIGNERS[1], (), provider="p"))
    assert scene.comments == ["key 1 (work)"]
    scene.table.add([software(2)])
    scene.table.remove_software()
    assert scene.comments == ["key 1 (work)"]
