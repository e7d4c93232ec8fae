"""The reader's side: a card speaks vpcd's protocol over TCP to the driver inside pcscd.

Every message, both ways, is a 2-byte length and that many bytes. One byte from the reader is a
control message, more are a command APDU. Connecting puts the card in, closing takes it out.
"""

import socket
import threading
import time
from contextlib import suppress

from tests.parts.token.card.card import ATR, Card
from tests.parts.token.card.knobs import Unplugged

POWER_OFF, POWER_ON, RESET, SEND_ATR = b"\0", b"\1", b"\2", b"\4"

CONNECT_SECONDS = 10.0


class Slot:
    """Puts a card into the reader that listens on `port` of this machine, and takes it out."""

    def __init__(self, card: Card, port: int) -> None:
        self.card = card
        self.port = port
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._seen = threading.Event()

    def plug(self) -> None:
        """Put the card in; returns when the reader has asked for its answer to reset."""
        self.unplug()
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self._connect(max(0.1, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                raise TimeoutError("the reader does not take the card")

    def unplug(self) -> None:
        """Take the card out, in the middle of a command if there is one."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
            self._connection = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _connect(self, seconds: float) -> bool:
        """Connect once. The driver queues no connections: a try that is lost gets no answer."""
        self._seen.clear()
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), seconds)
        except OSError:
            time.sleep(0.05)  # nobody listens yet
            return False
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        self._thread.start()
        if self._seen.wait(min(seconds, 2.0)):
            return True
        self.unplug()
        return False

    def _serve(self, connection: socket.socket) -> None:
        self.card.reset()
        with connection, suppress(OSError, Unplugged):
            while message := _receive(connection):
                answer = self._answer(message)
                if answer is not None:
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, message: bytes) -> bytes | None:
        if message == SEND_ATR:
            self._seen.set()
            return ATR
        if message in {POWER_OFF, POWER_ON, RESET}:
            self.card.reset()
            return None
        return self.card.transmit(message)


def _receive(connection: socket.socket) -> bytes:
    """Return one message, or nothing when the reader is gone."""
    length = int.from_bytes(_exactly(connection, 2), "big")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        # The driver sends length and body apart; without this each command waits 40 ms for a
        # delayed acknowledgement. The kernel resets the option, so it is set every time.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = connection.recv(length - len(data))
        if not part:
            return b""
        data += part
    return data
