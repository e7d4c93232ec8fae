"""Commands as a card reads them (ISO 7816-3, section 12), short and extended."""

from hsmagent.errors import ProtocolError
from hsmagent.schsm.apdu import MOST_ANSWER, SHORT_ANSWER, Command

_HEADER = 4


def p1p2(command: Command) -> int:
    """Return both parameters as one number: often a file id."""
    return command.p1 << 8 | command.p2


def parse(raw: bytes | bytearray) -> Command:
    """Read a command in any of the seven cases of ISO 7816-3. Raises ProtocolError."""
    if len(raw) < _HEADER:
        raise ProtocolError("a command without a header")
    head, body = raw[:_HEADER], raw[_HEADER:]
    data, le = b"", 0
    if len(body) == 1:
        le = body[0] or SHORT_ANSWER
    elif len(body) == 3 and body[0] == 0:
        le = int.from_bytes(body[1:], "big") or MOST_ANSWER
    elif body:
        data, rest, wide = _data(bytes(body))
        if rest:
            le = int.from_bytes(rest, "big") or (MOST_ANSWER if wide else SHORT_ANSWER)
    return Command(head[0], head[1], head[2], head[3], data, le)


def _data(body: bytes) -> tuple[bytes, bytes, bool]:
    """Cut `Lc data [Le]`; says too whether the lengths are extended."""
    wide = body[0] == 0
    start = 3 if wide else 1
    end = start + int.from_bytes(body[:start], "big")
    rest = body[end:]
    if len(body) < end or end == start or len(rest) not in {0, 2 if wide else 1}:
        raise ProtocolError("a command whose lengths do not fit")
    return body[start:end], rest, wide
