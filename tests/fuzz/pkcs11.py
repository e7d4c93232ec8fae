"""p11-kit's RPC as a program sends it: the stream, the calls, and what is answered from memory."""

import struct
from collections.abc import Awaitable
from contextlib import suppress
from functools import cache

from hsmagent.control.values import of_record
from hsmagent.errors import ProtocolError
from hsmagent.model import Key, PurposeKind
from hsmagent.p11 import rpc
from hsmagent.p11.calls import Call
from hsmagent.p11.face import Face
from hsmagent.p11.mechanisms import Wish
from hsmagent.p11.objects import Token, tokens_of
from hsmagent.p11.rpc import Mechanism
from hsmagent.p11.slots import Slots
from hsmagent.worker import spec
from tests.p11 import vectors
from tests.parts.mail.people import person
from tests.parts.token.p11_rpc import request, u64


@cache
def _slots() -> Slots:
    allowed = [str(kind) for kind in PurposeKind if kind.startswith("pkcs11")]
    keys = [of_record(person(kind).key) | {"allowed": allowed} for kind in ("rsa", "p256")]
    token = {
        "uri": "pkcs11:",
        "label": "work",
        "serial": "1",
        "model": "model",
        "manufacturer": "maker",
    }
    slots = Slots()
    slots.show(tokens_of({"tokens": [token | {"present": True, "keys": keys, "certificates": []}]}))
    return slots


async def _perform(key: Key, wish: Wish) -> bytes:
    del key
    return wish.op.encode()


async def _missed(_: Token) -> None:
    pass


async def _looked() -> None:
    pass


def _finish(later: Awaitable[bytes]) -> bytes:
    """Run what waits for nothing."""
    steps = later.__await__()
    try:
        while True:
            next(steps)
    except StopIteration as done:
        reply: bytes = done.value
        return reply


def calls(data: bytes) -> None:
    """Be a program's whole connection. Every reply can be parsed, and no error is CKR_OK."""
    stream = rpc.Stream()
    face = Face(_slots(), _perform, _missed, lambda: None, _looked)
    stream.feed(data)
    stream.next_version()
    with suppress(ProtocolError):
        while (frame := stream.next_frame()) is not None:
            answer = face.answer(frame.body)
            reply = answer if isinstance(answer, bytes) else _finish(answer)
            if reply[:4] == bytes(4):
                assert reply[4:9] == b"\0\0\0\1u"
                assert int.from_bytes(reply[9:], "big")


def _stream(*bodies: bytes) -> bytes:
    frames = (struct.pack(">III", 1, 0, len(body)) + body for body in bodies)
    return b"\1" + b"".join(frames)


def seeds() -> list[bytes]:
    """Return every call, and a program that signs."""
    session, slot = request(Call.C_OpenSession, 1, 4), request(Call.C_GetSlotList, 1, 4)
    slots = _slots()
    shown = slots.get(slots.numbers(present=True)[0])
    handles = [handle for handle, each in (shown.objects if shown else {}).items() if each.key]
    signing = [
        _stream(
            slot,
            session,
            request(Call.C_SignInit, 1, Mechanism(mechanism), handle),
            request(Call.C_SignUpdate, 1, b"part"),
            request(Call.C_SignFinal, 1, 512),
        )
        for mechanism, handle in zip(
            (spec.CKM_SHA256_RSA_PKCS, spec.CKM_ECDSA_SHA256), handles, strict=True
        )
    ]
    each = [_stream(session, bytes.fromhex(sent)) for _, sent, _ in vectors.REQUESTS]
    return [*signing, *each, _stream(b"\0\0\0\x63" + u64(0))]
