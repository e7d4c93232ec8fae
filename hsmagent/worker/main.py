"""A token worker's main: one module, one thread, one socket.

Started as a fresh interpreter by `link`. Everything blocks, on purpose: the daemon gives each
request a deadline and kills a worker that misses it.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from hsmagent.errors import ProtocolError
from hsmagent.frame import Reader, wipe
from hsmagent.hardening import PR_SET_PDEATHSIG, forbid_dumps, prctl
from hsmagent.worker import codec
from hsmagent.worker.cryptoki import CryptokiError
from hsmagent.worker.library import ModuleError
from hsmagent.worker.messages import (
    Done,
    Failed,
    Login,
    Logout,
    Look,
    Operate,
    Poll,
    Reply,
    Request,
    Slots,
)
from hsmagent.worker.module import Module

_RECEIVE = 1 << 16


def harden() -> None:
    """No core dump, no debugger, no life after the daemon: this process sees PINs."""
    forbid_dumps()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answer(module: Module, request: Request) -> Reply:
    """Do what the request says."""
    try:
        match request:
            case Operate():
                return Done(module.operate(request))
            case Look(objects=objects):
                return Slots(module.look(objects=objects))
            case Poll():
                return module.poll()
            case Login():
                module.login(request)
            case Logout(slot=slot):
                module.logout(slot)
    except ModuleError as error:
        return Failed(error.rv, error.where, error.login_lost)
    except CryptokiError as error:
        return Failed(error.rv, error.call)
    return Done()


def serve(answer: Callable[[Request], Reply], connection: socket.socket) -> None:
    """Answer requests in order until the daemon hangs up. Wipes their PINs."""
    reader = Reader(codec.MAX_REQUEST)
    buffer = bytearray(_RECEIVE)
    view = memoryview(buffer)
    while True:
        received = connection.recv_into(buffer)
        if not received:
            return
        reader.feed(view[:received])
        wipe(view[:received])
        while (body := reader.next_frame()) is not None:
            request = codec.decode_request(body)
            wipe(body)
            try:
                reply = answer(request)
            finally:
                if isinstance(request, Login | Operate) and request.pin is not None:
                    wipe(request.pin)
            connection.sendall(codec.encode(reply))


def main() -> None:
    """Load the module named on the command line, say whether that worked, serve. Never returns.

    argv: the socket's descriptor, the daemon's pid, the module's path and its parameters.
    """
    fd, daemon, path, parameters = sys.argv[-4:]
    harden()
    if os.getppid() != int(daemon):
        os._exit(0)  # it died before PR_SET_PDEATHSIG could tell us
    status = 0
    connection = socket.socket(fileno=int(fd))
    try:
        module = Module(path, parameters)
    except CryptokiError as error:
        connection.sendall(codec.encode(Failed(error.rv, error.call)))
    except ModuleError as error:
        connection.sendall(codec.encode(Failed(error.rv, error.where)))
    except OSError as error:
        connection.sendall(codec.encode(Failed(0, f"it cannot be loaded: {error}")))
    else:
        connection.sendall(codec.encode(Done()))
        try:
            serve(partial(answer, module), connection)
        except (OSError, ProtocolError):
            status = 1
    # No C_Finalize and no interpreter shutdown: both can hang in foreign code.
    os._exit(status)
