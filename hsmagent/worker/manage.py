"""The main of management's worker for one PKCS#11 module, which can write to tokens, too.

The worker is started by the command that a person typed, and ends with that.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hsmagent.worker import main as token_worker
from hsmagent.worker import spec
from hsmagent.worker.cryptoki import ModuleError
from hsmagent.worker.messages import Done, Failed, RawObject, Reply, Request
from hsmagent.worker.module import Module
from hsmagent.worker.orders import (
    Change,
    Create,
    Destroy,
    Find,
    Generate,
    InitPin,
    InitToken,
    ListMechanisms,
    Mechanisms,
    Objects,
    Order,
    OrderReply,
    SetPin,
)
from hsmagent.worker.provisioning import Provisioning

_COUNT = 4  # bytes of a count in Done


class Manage:
    """One module, with the calls that write."""

    def __init__(self, path: str, parameters: str) -> None:
        self._module = Module(path, parameters)
        self._calls = Provisioning(self._module.function_list)

    def answer(self, request: Request | Order) -> Reply | OrderReply:
        """Do what the request says."""
        try:
            match request:
                case InitToken(slot, so_pin, label):
                    self._calls.init_token(slot, so_pin, label)
                case InitPin():
                    self._init_pin(request)
                case SetPin():
                    self._set_pin(request)
                case ListMechanisms(slot):
                    return Mechanisms(self._calls.mechanisms(slot))
                case Generate() | Create() | Change() | Destroy() | Find():
                    with self._session(request.slot) as session:
                        return self._write(request, session)
                case _:
                    return token_worker.answer(self._module, request)
        except ModuleError as error:
            return Failed(error.rv, error.where, error.login_lost)
        return Done()

    def _write(
        self, request: Generate | Create | Change | Destroy | Find, session: int
    ) -> Reply | OrderReply:
        calls = self._calls
        match request:
            case Generate(_, mechanism, public, private):
                calls.generate(session, mechanism, public, private)
                return Done()
            case Create(_, attributes):
                calls.create(session, attributes)
                return Done()
            case Find(_, matching, wanted):
                handles = calls.find(session, matching)
                each = (calls.read(session, handle, wanted) for handle in handles)
                return Objects(tuple(map(RawObject, each)))
        handles = calls.find(session, request.matching)
        for handle in handles:
            if isinstance(request, Change):
                calls.change(session, handle, request.attributes)
            else:
                calls.destroy(session, handle)
        return Done(len(handles).to_bytes(_COUNT, "big"))

    @contextmanager
    def _session(self, slot: int) -> Iterator[int]:
        """Open a session that writes, beside the one that carries the login, for the block."""
        session = self._calls.open_session(slot, spec.CKF_SERIAL_SESSION | spec.CKF_RW_SESSION)
        try:
            yield session
        finally:
            with suppress(ModuleError):
                self._calls.close_session(session)

    def _init_pin(self, order: InitPin) -> None:
        with self._login(order.slot, order.token, spec.CKU_SO, order.so_pin) as session:
            self._calls.init_pin(session, order.pin)

    def _set_pin(self, order: SetPin) -> None:
        """Log in first: without a login, a TPM's module says OK to a wrong PIN and does nothing.

        Not where the PINs are typed on the reader, which asks for the old one and the new one: a
        login would have it ask for the old one twice.
        """
        if order.old is None:
            with self._session(order.slot) as session:
                self._calls.set_pin(session, None, None)
            return
        user = spec.CKU_SO if order.so else spec.CKU_USER
        with self._login(order.slot, order.token, user, order.old) as session:
            self._calls.set_pin(session, order.old, order.new)

    @contextmanager
    def _login(self, slot: int, token: bytes, user: int, pin: bytearray | None) -> Iterator[int]:
        if self._calls.token(slot).identity != token:
            raise ModuleError(spec.CKR_TOKEN_NOT_PRESENT, "C_Login")
        with self._session(slot) as session:
            self._calls.login(session, pin, user)
            try:
                yield session
            finally:
                with suppress(ModuleError):
                    self._calls.logout(session)


def main() -> None:
    """Serve the module named on the command line; argv is that of `worker.main`. Never returns."""
    path, parameters = sys.argv[-2:]
    token_worker.run(
        lambda: token_worker.by_messages(Manage(path, parameters).answer), sys.argv[-4:-2]
    )
