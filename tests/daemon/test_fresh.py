"""Frames that wait for a look at the tokens."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from hsmagent.daemon import fresh
from hsmagent.token.tokens import Tokens

if TYPE_CHECKING:
    from hsmagent.daemon.connection import Conversation


async def test_a_frame_whose_peer_hangs_up_during_the_look_is_wiped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may hold a PIN, and the conversation that wipes those never gets it."""

    async def look_anew(_tokens: Tokens, _first_look: float) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fresh, "look_anew", look_anew)
    conversation = fresh.Fresh(cast("Conversation", object()), cast("Tokens", object()))
    frame = bytearray(b"\0648219")
    answer = conversation.answer(frame)
    assert not isinstance(answer, bytes)
    waiting = asyncio.ensure_future(answer)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not any(frame)
