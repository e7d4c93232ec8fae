"""hsmagent-scd as GnuPG's agent runs it, and clients that speak Assuan to it."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.parts.mail.gnupg import CHECKOUT, SCD

SECONDS = 60.0


@dataclass
class Reply:
    """The answer to a command. error: 0, or libgpg-error's code without its source."""

    error: int = 0
    text: str = ""
    data: bytes = b""
    status: list[str] = field(default_factory=list)


def unquoted(data: bytes) -> bytes:
    parts = data.split(b"%")
    return parts[0] + b"".join(bytes.fromhex(p[:2].decode()) + p[2:] for p in parts[1:])


class AssuanClient:
    """One conversation. answers: to an INQUIRE, by its keyword."""

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self._source = source
        self._sink = sink
        self.answers: dict[str, bytes] = {}
        self.longest = 0
        self.greeting = self._reply()

    def send(self, line: bytes | str) -> None:
        try:
            self._sink.write((line.encode() if isinstance(line, str) else line) + b"\n")
            self._sink.flush()
        except ConnectionError:
            with suppress(ConnectionError):
                self._sink.close()  # with what it could not send
            raise EOFError from None

    def call(self, line: bytes | str) -> Reply:
        self.send(line)
        return self._reply()

    def _reply(self) -> Reply:
        reply = Reply()
        while line := self._line():
            self.longest = max(self.longest, len(line))
            word, _, rest = line.rstrip(b"\n").partition(b" ")
            match word:
                case b"OK":
                    return reply
                case b"ERR":
                    number, _, text = rest.partition(b" ")
                    assert int(number) >> 24 == 6
                    reply.error, reply.text = int(number) & 0xFFFF, text.decode()
                    return reply
                case b"D":
                    reply.data += unquoted(rest)
                case b"S":
                    reply.status.append(rest.decode())
                case b"INQUIRE":
                    self.send(b"D " + self.answers[rest.decode().split()[0]])
                    self.send("END")
        raise EOFError

    def close(self) -> None:
        """Hang up."""
        self._sink.close()
        self._source.close()

    def _line(self) -> bytes:
        try:
            return self._source.readline()
        except ConnectionError:
            return b""


@dataclass
class Scd:
    """The program: the conversation on its standard streams, and more on its socket."""

    process: subprocess.Popen[bytes]
    client: AssuanClient
    sockets: list[socket.socket] = field(default_factory=list)

    def more(self) -> AssuanClient:
        """Begin another conversation; it ends with the program."""
        sock = socket.socket(socket.AF_UNIX)
        self.sockets.append(sock)
        sock.settimeout(SECONDS)
        sock.connect(self.client.call("GETINFO socket_name").data.decode())
        source, sink = sock.makefile("rb"), sock.makefile("wb")
        sock.close()  # once these two are closed
        return AssuanClient(source, sink)


@contextmanager
def scd(environment: Mapping[str, str], *options: str, **more: Any) -> Iterator[Scd]:
    """Run it with these options, for the length of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", SCD, "--multi-server", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment, "PYTHONPATH": str(CHECKOUT)},
        **more,
    ) as process:
        assert process.stdin
        assert process.stdout
        running = Scd(process, AssuanClient(process.stdout, process.stdin))
        try:
            yield running
            process.stdin.close()
            process.wait(SECONDS)
        finally:
            process.kill()
            for sock in running.sockets:
                sock.close()


def sockets_of(folder: Path) -> list[Path]:
    return list(folder.glob("scd-*.sock"))
