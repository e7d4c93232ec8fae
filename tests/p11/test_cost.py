"""What programs cost: counted in the daemon, and bounded in processor time with room to spare."""

from hsmagent.p11.calls import Call
from hsmagent.p11.rpc import Attribute, Mechanism, Room
from hsmagent.worker import spec
from tests.p11.conftest import Connect
from tests.parts.agent.pkcs11 import FaceProcess

SEARCHES = 3000
# A call that is answered from memory takes 20 µs of a processor; a plain server took 80 to 150.
MOST_SECONDS = 75e-6


def test_searches_cost_the_face_little_and_the_daemon_nothing(
    face: FaceProcess, connect: Connect
) -> None:
    """Thunderbird searches for the trust of each of its roots, which no token of ours has."""
    client = connect(face)
    session = client.open()
    daemon, own = face.agent.processor_seconds(), face.processor_seconds()
    for number in range(SEARCHES):
        trust = Attribute(spec.CKA_CLASS, 0xCE534353), Attribute(spec.CKA_ISSUER, b"%d" % number)
        assert client.find(session, *trust) == ()
    assert face.agent.processor_seconds() - daemon < 0.05
    assert (face.processor_seconds() - own) / (3 * SEARCHES) < MOST_SECONDS


def test_a_list_and_a_signature_are_so_many_calls(face: FaceProcess, connect: Connect) -> None:
    """What a program pays once for its list, it does not pay for a signature."""
    client = connect(face)
    session = client.open()
    objects = client.find(session)
    wanted = Room(spec.CKA_CLASS, 8), Room(spec.CKA_ID, 64), Room(spec.CKA_VALUE, 4096)
    daemon = face.agent.processor_seconds()
    for _ in range(500):
        for handle in objects:
            client.call(Call.C_GetAttributeValue, session, handle, wanted)
    assert face.agent.processor_seconds() - daemon < 0.05
    template = Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY), Attribute(spec.CKA_ID, b"\2")
    (key,) = client.find(session, *template)
    own = face.processor_seconds()
    for _ in range(200):
        client.call(Call.C_SignInit, session, Mechanism(spec.CKM_ECDSA), key)
        client.call(Call.C_Sign, session, bytes(32), 64)
    assert (face.processor_seconds() - own) / 200 < 10 * MOST_SECONDS
