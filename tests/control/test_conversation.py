"""The protocol of the control sockets, with operations of the test's own."""

import json
from typing import Any

import pytest

from hsmagent import errors
from hsmagent.control.conversation import Answer, Asked, Conversation, Operation, Secret
from hsmagent.errors import HsmAgentError
from hsmagent.model import Peer, Process

PEER = Peer(1000, Process(1, "test"))
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, HsmAgentError)
]


class Odd(errors.TokenGone):
    """An error that only one part knows."""


async def ask(conversation: Conversation, body: bytes | dict[str, Any]) -> dict[str, Any]:
    frame = bytearray(body if isinstance(body, bytes) else json.dumps(body).encode())
    answer: dict[str, Any] = json.loads(await conversation.answer(frame))
    assert not any(frame), "the frame was not wiped"
    return answer


def conversation(**operations: Operation) -> Conversation:
    return Conversation(operations, lambda: PEER, lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_crosses_with_its_kind(kind: type[HsmAgentError]) -> None:
    async def fails(_: Asked) -> Answer:
        raise kind("the sentence")

    told = (await ask(conversation(fails=fails), {"op": "fails"}))["error"]
    error = errors.of_kind(told["kind"], told["message"])
    assert type(error) is kind
    assert str(error) == "the sentence"


def test_an_unknown_kind_is_told_as_the_nearest_that_is_known() -> None:
    assert errors.kind_of(Odd("gone")) == "TokenGone"
    assert type(errors.of_kind("TokenSleepy", "zzz")) is HsmAgentError


async def test_a_secret_is_the_next_frame_and_only_that() -> None:
    taken: list[bytes] = []

    async def asks(asked: Asked) -> Secret:
        assert asked.peer() is PEER

        async def take(secret: bytearray) -> Answer | Secret:
            taken.append(bytes(secret))
            return Secret({"more": True}, last) if secret == b"more" else await last(secret)

        async def last(secret: bytearray) -> Answer:
            return {"length": len(secret)}

        return Secret({"for": "the door"}, take)

    talk = conversation(asks=asks)
    assert await ask(talk, {"op": "asks"}) == {"ok": {"for": "the door"}}
    assert await ask(talk, b'{"op": "asks"}') == {"ok": {"length": 14}}
    assert taken == [b'{"op": "asks"}']
    assert await ask(talk, {"op": "asks"}) == {"ok": {"for": "the door"}}
    assert await ask(talk, b"more") == {"ok": {"more": True}}
    assert await ask(talk, b"\0\1\2") == {"ok": {"length": 3}}
    assert await ask(talk, {"op": "asks"}) == {"ok": {"for": "the door"}}


async def test_a_secret_that_is_refused_is_wiped_and_not_asked_for_again() -> None:
    async def asks(_: Asked) -> Secret:
        async def take(_: bytearray) -> Answer:
            raise errors.PinIncorrect("wrong")

        return Secret({}, take)

    talk = conversation(asks=asks)
    await ask(talk, {"op": "asks"})
    assert (await ask(talk, b"secret"))["error"]["kind"] == "PinIncorrect"
    assert (await ask(talk, b"secret"))["error"]["message"] == "the request is not JSON"


@pytest.mark.parametrize(
    "body", [b"\xff", b"[" * 100_000, b"[]", b"{}", b'{"op": 1}', b'{"op": "x"}']
)
async def test_what_is_no_request_is_refused(body: bytes) -> None:
    assert (await ask(conversation(), body))["error"]["kind"] == "UsageError"
