"""A scdaemon with a fake OpenPGP card: one RSA key, which signs after a PIN, by the real protocol.

Run as `scdaemon.py FOLDER --multi-server …`: the folder holds the key (key.der) and takes notes of
each start (started), each line that came (lines) and each PIN (pins). With a file `empty` in it,
there is no card.
"""

import os
import socket
import sys
import threading
from pathlib import Path
from typing import IO

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

SERIAL = "D2760001240103040006123456780000"
NO_DEVICE = 6 << 24 | 0x8000 | 80


def note(folder: Path, name: str, text: str) -> None:
    with (folder / name).open("a") as file:
        file.write(text + "\n")


class Conversation:
    def __init__(self, folder: Path, path: str, source: IO[bytes], sink: IO[bytes]) -> None:
        self._folder, self._path, self._source, self._sink = folder, path, source, sink
        self._data = b""
        key = load_der_private_key((folder / "key.der").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        self._grip = (folder / "grip").read_text()

    def run(self) -> None:
        self._send("OK a card is here")
        while line := self._source.readline():
            text = line.decode().rstrip("\n")
            note(self._folder, "lines", text)
            self._send(self._answer(text))
            if text.startswith("BYE"):
                break

    def _send(self, text: str | bytes) -> None:
        self._sink.write((text.encode() if isinstance(text, str) else text) + b"\n")
        self._sink.flush()

    def _answer(self, line: str) -> str:
        words = line.split()
        if line == "GETINFO socket_name":
            self._send(f"D {self._path}")
            return "OK"
        if (self._folder / "empty").exists():
            return f"ERR {NO_DEVICE} No such device <SCD>"
        ours = f"S KEYPAIRINFO {self._grip} OPENPGP.1 sc"
        match words:
            case ["SERIALNO" | "LEARN" as name, *_]:
                learned = ("S APPTYPE OPENPGP", ours) if name == "LEARN" else ()
                for text in (f"S SERIALNO {SERIAL}", *learned):
                    self._send(text)
            case ["KEYINFO", self._grip]:
                self._send(f"S KEYINFO {self._grip} T {SERIAL} OPENPGP.1 sc")
            case ["READKEY", *_, "OPENPGP.1"]:
                self._send_data(self._public_key())
            case ["SETDATA", data]:
                self._data = bytes.fromhex(data)
            case ["PKSIGN", "--hash=sha256", "OPENPGP.1" | self._grip]:
                self._sign()
            case ["OPTION" | "RESTART", *_]:
                pass
            case _:
                return f"ERR {6 << 24 | 275} Unknown IPC command <SCD>"
        return "OK"

    def _sign(self) -> None:
        self._send("INQUIRE NEEDPIN ||Please enter the PIN")
        while (line := self._source.readline().rstrip(b"\n")) not in (b"END", b"CAN"):
            note(self._folder, "pins", line.decode())
        self._send_data(self._key.sign(self._data[-32:], padding.PKCS1v15(), Prehashed(SHA256())))

    def _public_key(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        n, e = (
            value.to_bytes(value.bit_length() // 8 + 1, "big") for value in (numbers.n, numbers.e)
        )
        return b"(10:public-key(3:rsa(1:n%d:%b)(1:e%d:%b)))" % (len(n), n, len(e), e)

    def _send_data(self, data: bytes) -> None:
        for old, new in ((b"%", b"%25"), (b"\r", b"%0D"), (b"\n", b"%0A")):
            data = data.replace(old, new)
        self._send(b"D " + data)


def main() -> None:
    folder = Path(sys.argv[1])
    note(folder, "started", " ".join(sys.argv[2:]))
    path = f"{folder}/{os.getpid()}.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    threading.Thread(target=accept, args=(folder, path, listening), daemon=True).start()
    Conversation(folder, path, sys.stdin.buffer, sys.stdout.buffer).run()
    note(folder, "ended", "")


def accept(folder: Path, path: str, listening: socket.socket) -> None:
    while True:
        sock, _ = listening.accept()
        one = Conversation(folder, path, sock.makefile("rb"), sock.makefile("wb"))
        threading.Thread(target=one.run, daemon=True).start()


if __name__ == "__main__":
    main()
