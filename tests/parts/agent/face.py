"""Connections to the daemon's face socket, and programs on whose behalf they speak."""

import json
import os
import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmagent import frame
from hsmagent.errors import of_kind

SECONDS = 60.0

# A PKCS#11 program, as far as the daemon sees it: it has connected to us, and waits.
CONNECTS = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
)


@dataclass
class Program:
    """A process, and our end of the connection that it has made."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    def end(self) -> None:
        """Kill it: the kernel closes its end."""
        self.process.kill()
        self.process.wait()


@contextmanager
def program(
    folder: Path, command: Sequence[str] = (sys.executable, "-c", CONNECTS)
) -> Iterator[Program]:
    """Run a program that connects to the socket named by its last argument.

    Its working directory is `folder`, which may be long: the name is relative.
    """
    path = folder / "p11.sock"
    path.unlink(missing_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
            listening.listen()
            listening.settimeout(SECONDS)
            with subprocess.Popen([*command, path.name]) as process:
                try:
                    connection, _ = listening.accept()
                    with connection:
                        yield Program(process, connection)
                finally:
                    process.kill()
    finally:
        os.chdir(before)


class FaceClient:
    """A connection to the face socket, as our own processes make it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self._reader = frame.Reader(1 << 24)

    def client(self, of: socket.socket | None, family: str = "pkcs11") -> dict[str, Any]:
        """Say for which program this connection speaks, and hand that program's socket over."""
        body = frame.encode(json.dumps({"op": "client", "for": family}).encode())
        if of is None:
            self.socket.sendall(body)
        else:
            socket.send_fds(self.socket, [body], [of.fileno()])
        return self.answer()

    def call(self, op: str, **fields: object) -> dict[str, Any]:
        """Ask for one operation; bytes travel as base64. Raises the error that is answered."""
        self.send(op, **fields)
        return self.answer()

    def send(self, op: str, **fields: object) -> None:
        values = {
            name: b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in fields.items()
        }
        self.socket.sendall(frame.encode(json.dumps({"op": op, **values}).encode()))

    def answer(self) -> dict[str, Any]:
        while (body := self._reader.next_frame()) is None:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._reader.feed(data)
        answer = json.loads(body)
        if "error" in answer:
            raise of_kind(answer["error"]["kind"], answer["error"]["message"])
        result: dict[str, Any] = answer["ok"]
        return result

    def keys(self) -> dict[str, bytes]:
        """Return the SPKI of every key that is shown, by label."""
        tokens = self.call("tokens")["tokens"]
        return {key["label"]: b64decode(key["spki"]) for token in tokens for key in token["keys"]}

    def close(self) -> None:
        self.socket.close()
