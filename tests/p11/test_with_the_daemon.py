"""What becomes of programs when people say no, tokens leave and the daemon is started anew."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from hsmagent.p11.calls import Call
from hsmagent.p11.rpc import Attribute, Mechanism
from hsmagent.who.peer import peer_of_process
from hsmagent.worker import spec
from tests.daemon.conftest import module_config
from tests.p11.conftest import Connect, Holder, StartFace
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.agent.pkcs11 import FREELY, FaceProcess
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.dbusmock import notified, notifying_bus
from tests.parts.desktop.desk import Desk
from tests.parts.token.p11_rpc import RpcClient, Rv
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

MESSAGE = Mechanism(spec.CKM_SHA256_RSA_PKCS)
DATA = b"what is signed"


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with notifying_bus() as bus:
        yield bus


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


def config(token: SoftHsm, allow: str, confirm: str = "") -> str:
    lines = f'confirm = "{confirm}"\n' if confirm else ""
    return (
        '[pkcs11]\nenabled = true\n[prompt]\norder = ["askpass"]\n'
        f'[[key]]\nmatch = "pkcs11:"\nallow = [{allow}]\n{lines}{module_config(token)}'
    )


def begun(client: RpcClient, session: int) -> None:
    rsa = client.find(
        session, Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY), Attribute(spec.CKA_ID, b"\1")
    )[0]
    client.call(Call.C_SignInit, session, MESSAGE, rsa)


def sign(client: RpcClient, session: int) -> bytes:
    begun(client, session)
    (signature,) = client.call(Call.C_Sign, session, DATA, 256)
    return bytes(signature)


def check(holder: Holder, signature: bytes) -> None:
    public = holder.people["rsa"].private.public_key()
    public.verify(signature, DATA, padding.PKCS1v15(), hashes.SHA256())


# -- policy and people -----------------------------------------------------------------------


def test_a_key_that_no_allow_names_is_not_even_shown(
    start_face: StartFace, connect: Connect, holder: Holder
) -> None:
    face = start_face(
        '[pkcs11]\nenabled = true\n[[key]]\nmatch = "pkcs11:id=%01"\nallow = ["pkcs11-message"]\n'
        + module_config(holder.token)
    )
    client = connect(face)
    session = client.open()
    assert len(client.find(session, Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY))) == 1
    rsa, *more = client.find(session, Attribute(spec.CKA_ID, b"\1"))
    assert len(more) == 2
    assert client.find(session, Attribute(spec.CKA_ID, b"\2")) == ()
    private = client.find(session, Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY))[0]
    for mechanism, call in (
        (Mechanism(spec.CKM_RSA_PKCS), Call.C_SignInit),
        (Mechanism(spec.CKM_RSA_PKCS), Call.C_DecryptInit),
    ):
        with pytest.raises(Rv) as refused:
            client.call(call, session, mechanism, private)
        assert refused.value.rv == spec.CKR_KEY_FUNCTION_NOT_PERMITTED
    assert rsa


def test_nobody_is_served_who_was_not_wanted(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    done = agent.hsmagent("pkcs11")
    assert done.returncode == 2
    assert "enabled = true" in done.stderr
    assert not (agent.runtime / "pkcs11").exists()


def test_a_pin_a_yes_and_a_no(
    start_face: StartFace, connect: Connect, holder: Holder, desk: Desk
) -> None:
    face = start_face(config(holder.token, '"pkcs11-message"', "always"), **desk.environment)
    client = connect(face)
    session = client.open()
    for answer in (PIN, "yes"):
        desk.answers(answer)
        check(holder, sign(client, session))
    assert "python" in desk.asked, "the program is named that is at the other end"
    desk.answers("no")
    with pytest.raises(Rv) as refused:
        sign(client, session)
    assert refused.value.rv == spec.CKR_FUNCTION_CANCELED


def test_a_no_to_the_pin(
    start_face: StartFace, connect: Connect, holder: Holder, desk: Desk
) -> None:
    face = start_face(config(holder.token, '"pkcs11-message"'), **desk.environment)
    client = connect(face)
    session = client.open()
    desk.answers("no")
    with pytest.raises(Rv) as refused:
        sign(client, session)
    assert refused.value.rv == spec.CKR_FUNCTION_CANCELED
    face.agent.unlock(PIN)
    desk.answers("yes")
    check(holder, sign(client, session))


def test_nobody_waits_for_another_ones_question(
    start_face: StartFace, connect: Connect, holder: Holder, desk: Desk
) -> None:
    """A thread that waits for a person holds up neither its own program nor others."""
    face = start_face(config(holder.token, '"pkcs11-message"'), **desk.environment)
    client, other = connect(face), connect(face)
    session = client.open()
    begun(client, session)
    waiting = client.send(Call.C_Sign, session, DATA, 256)
    until(lambda: desk.asked)
    for each in (client, other):
        looking = each.open()
        assert len(each.find(looking, Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY))) == 2
    desk.answers(PIN)
    check(holder, client.wait(Call.C_Sign, waiting)[0])


def test_a_question_goes_when_its_program_does(
    start_face: StartFace, connect: Connect, holder: Holder, desk: Desk
) -> None:
    face = start_face(config(holder.token, '"pkcs11-message"'), **desk.environment)
    client = connect(face)
    session = client.open()
    begun(client, session)
    client.send(Call.C_Sign, session, DATA, 256)
    until(lambda: desk.asked)
    assert desk.askers
    client.close()
    until(lambda: not desk.askers)


# -- tokens and the daemon come and go -------------------------------------------------------


def slots(client: RpcClient) -> tuple[int, ...]:
    """Return the slots with a token."""
    found: tuple[int, ...]
    (found,) = client.call(Call.C_GetSlotList, 1, 4)
    return found


def slot_flags(client: RpcClient) -> int:
    return int(client.call(Call.C_GetSlotInfo, 1)[2])


def pull(token: SoftHsm, face: FaceProcess, client: RpcClient) -> None:
    """Take a token's files away; return when the client sees that."""
    tokens = token.folder / "tokens"
    tokens.rename(token.folder / "away")
    tokens.mkdir()
    face.agent.hsmagent("refresh")
    until(lambda: not slot_flags(client) & spec.CKF_TOKEN_PRESENT)


def put_back(token: SoftHsm, face: FaceProcess, client: RpcClient) -> None:
    """Bring them back; return when the client sees that."""
    tokens = token.folder / "tokens"
    tokens.rmdir()
    (token.folder / "away").rename(tokens)
    face.agent.hsmagent("refresh")
    until(lambda: slot_flags(client) & spec.CKF_TOKEN_PRESENT)


def misses(client: RpcClient, call: Call, *values: object) -> int:
    """Make a call that wants the token; return what it is refused with."""
    with pytest.raises(Rv) as gone:
        client.call(call, *values)
    return int(gone.value.rv)


def told(bus: PrivateBus) -> int:
    """Return how often a person was told that a program wants the token."""
    return notified(bus, "Notify").count("wanted the token “work”")


def test_a_person_is_told_once_that_a_program_wants_a_token_that_is_away(
    start_face: StartFace, connect: Connect, holder: Holder, bus: PrivateBus, tmp_path: Path
) -> None:
    own = holder.token.copy(tmp_path / "copy")
    face = start_face(FREELY + module_config(own), DBUS_SESSION_BUS_ADDRESS=bus.address)
    client, other = connect(face), connect(face)
    session = client.open()
    opens = Call.C_OpenSession, 1, spec.CKF_SERIAL_SESSION
    pull(own, face, client)
    assert misses(client, Call.C_GetTokenInfo, 1) == spec.CKR_TOKEN_NOT_PRESENT
    assert client.call(Call.C_GetSlotList, 0, 4) == ((1, 2),)
    assert misses(client, Call.C_GetSessionInfo, session) == spec.CKR_DEVICE_REMOVED
    assert misses(client, *opens) == spec.CKR_TOKEN_NOT_PRESENT
    put_back(own, face, client)
    begun(client, session := client.open())
    face.agent.unlock(PIN)
    pull(own, face, client)
    until(lambda: "work was removed" in notified(bus, "Notify"))  # which comes after all before it
    assert told(bus) == 1
    own_name = peer_of_process(os.getpid(), os.getuid()).process.program
    assert f"{own_name} wanted" in notified(bus, "Notify"), "not the process between"
    assert "It is not plugged in." in notified(bus, "Notify")
    assert misses(client, Call.C_Sign, session, DATA, 256) == spec.CKR_DEVICE_REMOVED
    until(lambda: told(bus) == 2)
    assert misses(other, *opens) == spec.CKR_TOKEN_NOT_PRESENT
    until(lambda: told(bus) == 3)


def test_a_person_is_told_once_that_who_used_a_token_looks_for_it(
    start_face: StartFace, connect: Connect, holder: Holder, bus: PrivateBus, tmp_path: Path
) -> None:
    """NSS looks whether the token is there, and makes no other call."""
    own = holder.token.copy(tmp_path / "copy")
    face = start_face(FREELY + module_config(own), DBUS_SESSION_BUS_ADDRESS=bus.address)
    face.agent.unlock(PIN)
    client, other = connect(face), connect(face)
    check(holder, sign(client, client.open()))
    other.open()
    pull(own, face, other)  # who looks, but never used it
    assert not slot_flags(client) & spec.CKF_TOKEN_PRESENT
    until(lambda: told(bus))
    assert told(bus) == 1
    put_back(own, face, client)
    pull(own, face, client)
    until(lambda: told(bus) == 2)
    slot_flags(client)
    assert misses(client, Call.C_OpenSession, 1, spec.CKF_SERIAL_SESSION)
    assert misses(other, Call.C_OpenSession, 1, spec.CKF_SERIAL_SESSION)
    until(lambda: told(bus) > 2)
    assert told(bus) == 3, "the other one's"


def test_a_person_is_told_of_a_token_that_left_while_no_daemon_was_there(
    start_face: StartFace, connect: Connect, holder: Holder, bus: PrivateBus, tmp_path: Path
) -> None:
    own = holder.token.copy(tmp_path / "copy")
    face = start_face(FREELY + module_config(own), DBUS_SESSION_BUS_ADDRESS=bus.address)
    client, other = connect(face), connect(face)
    begun(client, session := client.open())
    face.agent.stop()
    tokens = own.folder / "tokens"
    tokens.rename(own.folder / "away")
    tokens.mkdir()
    face.agent.start()
    assert misses(client, Call.C_Sign, session, DATA, 256) == spec.CKR_DEVICE_REMOVED
    until(lambda: told(bus) == 1)
    until(lambda: not slot_flags(client) & spec.CKF_TOKEN_PRESENT)
    opens = Call.C_OpenSession, 1, spec.CKF_SERIAL_SESSION
    assert misses(client, *opens) == spec.CKR_TOKEN_NOT_PRESENT
    assert misses(other, *opens) == spec.CKR_TOKEN_NOT_PRESENT
    until(lambda: told(bus) > 1)
    assert told(bus) == 2, "once for each program, by a daemon that never saw the token"


def test_a_token_leaves_and_comes_back(
    start_face: StartFace, connect: Connect, holder: Holder
) -> None:
    own = holder.token.copy(holder.folder / f"copy{os.getpid()}")
    face = start_face(FREELY + module_config(own))
    client = connect(face)
    session = client.open()
    face.agent.unlock(PIN)
    check(holder, sign(client, session))
    pull(own, face, client)
    assert not slots(client)
    assert misses(client, Call.C_GetSessionInfo, session) == spec.CKR_DEVICE_REMOVED
    opens = Call.C_OpenSession, 1, spec.CKF_SERIAL_SESSION
    assert misses(client, *opens) == spec.CKR_TOKEN_NOT_PRESENT
    put_back(own, face, client)
    face.agent.unlock(PIN)
    check(holder, sign(client, client.open()))


def test_the_daemon_is_started_anew_beneath_a_program(
    start_face: StartFace, connect: Connect, holder: Holder
) -> None:
    face = start_face(FREELY + module_config(holder.token))
    client = connect(face)
    session = client.open()
    face.agent.unlock(PIN)
    check(holder, sign(client, session))
    face.agent.stop()
    assert slot_flags(client) & spec.CKF_TOKEN_PRESENT, "what was there is told from memory"
    with pytest.raises(Rv) as gone:
        sign(client, session)
    assert gone.value.rv == spec.CKR_DEVICE_REMOVED
    face.agent.start()
    face.agent.unlock(PIN)
    check(holder, sign(client, session))


def test_the_face_may_be_there_before_the_daemon(
    tmp_path: Path, connect: Connect, holder: Holder
) -> None:
    agent = AgentProcess(tmp_path / "h", FREELY + module_config(holder.token))
    face = FaceProcess(agent)
    try:
        face.start()
        client = connect(face)
        assert not slots(client)
        agent.start()
        until(lambda: slots(client))
        agent.unlock(PIN)
        check(holder, sign(client, client.open()))
    finally:
        face.stop()
        agent.stop()


def test_a_key_is_shown_no_longer_when_the_configuration_says_so(
    start_face: StartFace, connect: Connect, holder: Holder
) -> None:
    face = start_face(FREELY + module_config(holder.token))
    client = connect(face)
    client.open()
    face.agent.configure("[pkcs11]\nenabled = true\n" + module_config(holder.token))
    face.agent.process.send_signal(signal.SIGHUP)
    until(lambda: not slots(client))


def test_nothing_is_shown_when_programs_are_served_no_longer(
    start_face: StartFace, connect: Connect, holder: Holder
) -> None:
    """Also where nobody made the face socket for the daemon, so that it just goes."""
    face = start_face(FREELY + module_config(holder.token))
    client = connect(face)
    client.open()
    disabled = FREELY.replace("enabled = true", "enabled = false") + module_config(holder.token)

    face.agent.configure(disabled)
    face.agent.process.send_signal(signal.SIGHUP)
    until(lambda: not slots(client))
    face.agent.configure(FREELY + module_config(holder.token))
    face.agent.process.send_signal(signal.SIGHUP)
    until(lambda: slots(client))
    face.agent.stop()
    assert slots(client), "what was there is told from memory"
    face.agent.configure(disabled)
    face.agent.start()
    until(lambda: not slots(client))


def test_it_leaves_no_socket_behind(start_face: StartFace, holder: Holder) -> None:
    face = start_face(FREELY + module_config(holder.token))
    assert face.socket.stat().st_mode & 0o777 == 0o600
    assert face.socket.parent.stat().st_mode & 0o777 == 0o700
    assert face.stop() == 0
    assert not face.socket.exists()
    assert face.agent.run([*PROGRAM, "status"]).returncode == 0
