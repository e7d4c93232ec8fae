"""A hostile program costs itself, and no more."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmagent.p11.calls import Call
from hsmagent.p11.rpc import Attribute, Mechanism
from hsmagent.p11.server import MOST_EACH
from hsmagent.p11.sessions import MOST_SESSIONS
from hsmagent.worker import spec
from tests.parts.agent.pkcs11 import FaceProcess
from tests.parts.token.p11_rpc import RpcClient, Rv, request, u32
from tests.parts.until import until

MEGABYTE = 1 << 20


def resident(face: FaceProcess) -> int:
    pages = int(Path(f"/proc/{face.process.pid}/statm").read_text().split()[1])
    return pages * 4096


def raw(face: FaceProcess) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(face.socket))
    return sock


def still_serves(face: FaceProcess) -> None:
    client = RpcClient(face.socket).initialize()
    assert client.call(Call.C_GetInfo)
    client.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" + struct.pack(">III", 1, 0, 0xFFFFFFFF),
        b"\0" + struct.pack(">III", 1, 0xFFFFFFFF, 0),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 100,
    ],
)
def test_who_speaks_something_else_is_hung_up_on(face: FaceProcess, sent: bytes) -> None:
    sock = raw(face)
    sock.sendall(sent)
    with sock:
        while sock.recv(1000):
            pass
    still_serves(face)


def test_half_a_call_waits_and_costs_nobody(face: FaceProcess) -> None:
    sock = raw(face)
    sock.sendall(b"\0" + struct.pack(">III", 1, 0, 1000) + b"half")
    still_serves(face)
    sock.close()
    still_serves(face)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
@settings(max_examples=40)
def test_garbage_in_frames_is_answered_call_by_call(
    shared_face: FaceProcess, bodies: list[bytes]
) -> None:
    client = RpcClient(shared_face.socket)
    try:
        for body in bodies:
            code = client.send_body(body)
            found, reply = client.next_reply()
            assert found == code
            assert reply[:4] == u32(0) or len(reply) >= 8
    finally:
        client.close()


def test_handles_of_nothing(face: FaceProcess) -> None:
    client = RpcClient(face.socket).initialize()
    big = 2**64 - 1
    of_none: dict[Call, tuple[Any, ...]] = {
        Call.C_GetTokenInfo: (big,),
        Call.C_OpenSession: (big, 4),
        Call.C_CloseSession: (big,),
        Call.C_FindObjects: (big, 0xFFFFFFFF),
        Call.C_SignInit: (big, Mechanism(1), big),
        Call.C_Sign: (big, b"", 0xFFFFFFFF),
        Call.C_GenerateRandom: (big, 0xFFFFFFFF),
    }
    for call, values in of_none.items():
        with pytest.raises(Rv):
            client.call(call, *values)
    session = client.open()
    of_nothing: dict[Call, tuple[Any, ...]] = {
        Call.C_SignInit: (session, Mechanism(1), big),
        Call.C_GetAttributeValue: (session, big, ()),
        Call.C_DestroyObject: (session, big),
        Call.C_GenerateRandom: (session, 0xFFFFFFFF),
    }
    for call, values in of_nothing.items():
        with pytest.raises(Rv):
            client.call(call, *values)
    client.close()


def test_sessions_and_searches_end_somewhere(face: FaceProcess) -> None:
    client = RpcClient(face.socket).initialize()
    for _ in range(MOST_SESSIONS):
        client.call(Call.C_FindObjectsInit, client.open(), ())
    with pytest.raises(Rv) as full:
        client.open()
    assert full.value.rv == spec.CKR_SESSION_COUNT
    still_serves(face)
    client.close()


def test_a_program_that_does_not_read_is_not_read_either(face: FaceProcess) -> None:
    client = RpcClient(face.socket).initialize()
    before = resident(face)
    session = client.open()
    body = request(Call.C_GenerateRandom, session, 1 << 16)
    frames = b"".join(struct.pack(">III", code, 0, len(body)) + body for code in range(2000))
    client.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        client.socket.sendall(frames * 100)  # 13 GB of answers
    still_serves(face)
    assert resident(face) - before < 16 * MEGABYTE
    client.close()


def test_a_flood_of_uses_is_a_few_at_a_time(face: FaceProcess) -> None:
    client = RpcClient(face.socket).initialize()
    before = resident(face)
    sessions = [client.open() for _ in range(200)]
    template = Attribute(spec.CKA_CLASS, spec.CKO_PRIVATE_KEY), Attribute(spec.CKA_ID, b"\1")
    (key,) = client.find(sessions[0], *template)
    for session in sessions:
        client.call(Call.C_SignInit, session, Mechanism(spec.CKM_SHA256_RSA_PKCS), key)
    sent = {client.send(Call.C_Sign, session, b"data", 256) for session in sessions}
    still_serves(face)
    assert {client.next_reply()[0] for _ in sessions} == sent
    assert resident(face) - before < 16 * MEGABYTE
    client.close()


def test_one_process_has_its_share_of_connections(face: FaceProcess) -> None:
    held = []
    try:
        for _ in range(MOST_EACH * 2):
            sock = raw(face)
            held.append(sock)
            if not served(sock):
                break
        assert len(held) <= MOST_EACH + 1
        assert face.must("pkcs11-tool", "--module", face.module, "--list-slots")
    finally:
        for sock in held:
            sock.close()
    until(lambda: answered(face))


def served(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"\0")
        return bool(sock.recv(1))
    except OSError:
        return False


def answered(face: FaceProcess) -> bool:
    with raw(face) as sock:
        return served(sock)
