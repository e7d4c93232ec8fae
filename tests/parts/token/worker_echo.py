"""A worker's main that holds no module: it answers with what it was started with."""

import os
import socket
import sys

from hsmagent.worker.main import answer_all, by_messages
from hsmagent.worker.messages import Done, Reply, Request
from hsmagent.worker.orders import Order


def main() -> None:
    """Answer everything with our only argument and the variable ECHO."""
    fd, _daemon, word = sys.argv[-3:]

    def answer(_request: Request | Order) -> Reply:
        return Done(f"{word} {os.environ['ECHO']}".encode())

    connection = socket.socket(fileno=int(fd))
    connection.sendall(bytes.fromhex("00000005 81 00000000"))  # ready
    answer_all(by_messages(answer), connection)
    os._exit(0)
