"""What a conversation answers, whether at once or after some work."""

from hsmagent.daemon.connection import Conversation


async def reply_of(conversation: Conversation, frame: bytes | bytearray) -> bytes:
    """Return the reply to a frame; a copy of it is handed over, unless it is to be wiped."""
    body = frame if isinstance(frame, bytearray) else bytearray(frame)
    answer = conversation.answer(body)
    return answer if isinstance(answer, bytes) else await answer
