"""A token worker's main: one module, one thread, one socket.

Started as a fresh interpreter by `link`. Everything blocks, on purpose: the daemon gives each
request a deadline and kills a worker that misses it.
"""

import _socket as socket  # without `socket`, which brings selectors and their like
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hsmagent.errors import ProtocolError
from hsmagent.frame import Reader, wipe
from hsmagent.worker import codec
from hsmagent.worker.cryptoki import ModuleError
from hsmagent.worker.hardening import PR_SET_PDEATHSIG, forbid_dumps, prctl
from hsmagent.worker.messages import (
    PCSC,
    Action,
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

if TYPE_CHECKING:
    from hsmagent.worker.orders import Order, OrderReply

_RECEIVE = 1 << 16

Answer = Callable[["Request | Order"], "Reply | OrderReply"]
"""Does what a request says and returns the reply."""

Serve = Callable[[bytearray], bytes | bytearray]
"""Takes a request's body and returns the reply's frame. Wipes the body, if it may hold a PIN."""


def harden() -> None:
    """Forbid core dumps and debuggers, and end with the daemon: this process sees PINs."""
    forbid_dumps()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answer(module: Module, request: "Request | Order") -> Reply:
    """Do what the request says. Raises ProtocolError for an order: those are for `manage`."""
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
            case _:
                raise ProtocolError("a message that is not for this worker")
    except ModuleError as error:
        return _told(error)
    return Done()


def _told(error: ModuleError) -> Failed:
    return Failed(error.rv, error.where, error.login_lost)


def _uses_pcsc() -> bool:
    """Whether the module speaks to cards by way of pcscd: then libpcsclite is loaded, too."""
    with suppress(OSError), open("/proc/self/maps") as maps:  # noqa: PTH123 - pathlib is slow to import
        return any("libpcsclite" in line for line in maps)
    return False


def wipe_secrets(request: "Request | Order") -> None:
    """Overwrite the PINs in a message: every field that is a bytearray."""
    for name in request.__slots__:
        value = getattr(request, name)
        if value.__class__ is bytearray:
            wipe(value)


def by_messages(answer: Answer) -> Serve:
    """Return what serves requests by reading all of each."""
    return partial(_by_messages, answer)


def _by_messages(answer: Answer, body: bytearray) -> bytearray:
    request = codec.decode_request(body)
    wipe(body)
    try:
        return codec.encode(answer(request))
    finally:
        wipe_secrets(request)


def with_a_module(module: Module, body: bytearray) -> bytes | bytearray:
    """Serve a request; a signature by a key that has signed before, in few steps.

    A worker that sleeps between two signatures runs everything cold, so that the ordinary way takes
    a twentieth of a software token's signature.
    """
    head, data = codec.operation(body)
    signing = module.signings.get(head)
    if signing is None:
        return _by_messages(partial(answer, module), body)
    try:
        return codec.encode_result(signing(data, None))
    except ModuleError as error:
        return codec.encode(_told(module.failed(codec.slot_of(head), Action.SIGN, error)))


def answer_all(serve: Serve, connection: socket.socket) -> None:
    """Serve requests in order until the daemon hangs up."""
    reader = Reader(codec.MAX_REQUEST)
    buffer = bytearray(_RECEIVE)
    view = memoryview(buffer)
    while True:
        received = connection.recv_into(buffer)
        if not received:
            return
        reader.move(view[:received])
        while reader.pending and (body := reader.next_frame()) is not None:
            connection.sendall(serve(body))


def main() -> None:
    """Serve the module named on the command line. Never returns.

    argv: the socket's descriptor, the daemon's pid, the module's path and its parameters.
    """
    path, parameters = sys.argv[-2:]
    run(lambda: partial(with_a_module, Module(path, parameters)), sys.argv[-4:-2])


def run(make: Callable[[], Serve], ends: Sequence[str]) -> None:
    """Make what serves requests, tell whether that worked, and serve. Never returns.

    ends: the socket's descriptor and the pid of the process that started us.
    """
    fd, parent = map(int, ends)
    harden()
    if os.getppid() != parent:
        os._exit(0)  # that process ended before PR_SET_PDEATHSIG could tell us
    status = 0
    connection = socket.socket(fileno=fd)
    try:
        made = make()
    except ModuleError as error:
        connection.sendall(codec.encode(Failed(error.rv, error.where)))
    except OSError as error:
        connection.sendall(codec.encode(Failed(0, f"it cannot be loaded: {error}")))
    else:
        connection.sendall(codec.encode(Done(PCSC if _uses_pcsc() else b"")))
        try:
            answer_all(made, connection)
        except (OSError, ProtocolError):
            status = 1
    # No C_Finalize and no interpreter shutdown: both can hang in foreign code.
    os._exit(status)
