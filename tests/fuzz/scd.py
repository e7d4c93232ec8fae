"""Assuan's lines as GnuPG's agent sends them, or somebody else: to our card, and to no other."""

from collections.abc import Coroutine, Sequence
from functools import cache
from typing import Any

from hsmagent import assuan
from hsmagent.control.values import of_record, to_base64
from hsmagent.errors import ProtocolError
from hsmagent.model import Key
from hsmagent.scd.card import Card
from hsmagent.scd.conversation import Conversation
from hsmagent.scd.daemon import Daemon
from hsmagent.scd.real import RealScdaemon
from tests.parts.mail.people import person, root


@cache
def _card() -> Card:
    keys = [of_record(person(kind).key) | {"allowed": ["gnupg", "ssh"]} for kind in ("rsa", "p256")]
    authority = {"certificate": to_base64(root().der)}
    return Card().following({"tokens": [{"keys": keys, "certificates": [authority]}]})


class _Daemon(Daemon):
    async def card(self, before: Card) -> Card:
        del before
        return _card()

    async def use(self, key: Key, op: str, **fields: object) -> bytes:
        assert op in {"sign_digest", "decrypt", "derive"}
        if op == "sign_digest":
            assert isinstance(fields["digest"], bytes)
            assert len(fields["digest"]) in {32, 48, 64}
        return bytes((key.bits + 7) // 8)


class _Shared:
    def __init__(self) -> None:
        self.card = Card()
        self.socket_path = "/nowhere"
        self.real = RealScdaemon(self._find)

    async def _find(self) -> Sequence[str]:
        return ()

    async def version(self) -> str:
        return "2.4.7"

    def has_learned(self, grip: str) -> bool:
        return grip.startswith("0")

    def end(self) -> None:
        pass


class _Client:
    def __init__(self, data: bytes) -> None:
        self._lines = assuan.LineReader()
        self._data = data
        self.written = bytearray()

    async def line(self) -> bytearray | None:
        while (line := self._lines.next_line()) is None:
            if not self._data:
                return None
            room = self._lines.room
            piece, self._data = self._data[: len(room)], self._data[len(room) :]
            room[: len(piece)] = piece
            self._lines.arrived(len(piece))
        return line

    async def write(self, data: bytes | bytearray) -> None:
        self.written += data

    async def pass_on(self, line: bytes | bytearray) -> None:
        self.written += line + b"\n"


def conversation(data: bytes) -> None:
    """Be a whole conversation. Every line of a reply is one, and short enough."""
    client = _Client(data)
    talk = Conversation(client, _Daemon(""), _Shared())
    try:
        _finish(talk.run())
    except ProtocolError:
        pass  # a line without an end
    finally:
        _finish(talk.close())
    assert client.written.endswith(b"\n")
    for line in bytes(client.written).split(b"\n")[:-1]:
        assert len(line) < assuan.LONGEST_LINE
        assert line.partition(b" ")[0] in {b"OK", b"ERR", b"S", b"D"}


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def seeds() -> list[bytes]:
    """Return a session of each kind of GnuPG."""
    info = b"3031300d060960864801650304020105000420" + b"00" * 32
    rsa, ec = (grip.encode() for grip in _card().keys)
    return [
        b"LEARN --force\nREADCERT HSMAGENT.%b\nREADKEY HSMAGENT.%b\n" % (rsa, ec),
        b"SERIALNO --all\nKEYINFO %b\nSETDATA %b\nPKSIGN --hash=sha256 %b\n" % (rsa, info, rsa),
        b"SETDATA 04%b\nPKDECRYPT %b\nGETATTR $AUTHKEYID\nRESTART\n" % (b"00" * 64, ec),
        b"SERIALNO\nSETDATA --append 00\nPKAUTH %b\nGETINFO card_list\nBYE\n" % ec,
    ]
