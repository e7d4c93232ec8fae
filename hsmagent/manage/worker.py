"""Management's end of a worker: one request after the other, and errors with a sentence each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from hsmagent.errors import PinError, PinIncorrect, PinLocked, TokenError, WorkerDied
from hsmagent.model import ModuleSpec
from hsmagent.schsm.apdu import INS, SW
from hsmagent.token.exclusive import is_opensc
from hsmagent.token.trouble import why
from hsmagent.worker import spec
from hsmagent.worker.link import Link
from hsmagent.worker.messages import Failed, Reply, Request
from hsmagent.worker.orders import CardSaid, InitPin, InitToken, Order, OrderReply, SetPin
from hsmagent.worker.process import Program

_START = 20.0
_CARD = "hsmagent.worker.card"
SECONDS = 60.0  # for what a card does in moments: another program may keep the card meanwhile
SECONDS_TO_TYPE = 180.0  # three PINs on a reader, each of which has a time limit of its own
_TRIES = 0x0F


_CARD_WORDS = {
    SW.NOT_LOGGED_IN: "it wants a login for that",
    SW.PIN_BLOCKED: "the PIN is blocked",
    SW.NO_MEMORY: "its memory is full",
    SW.EXISTS: "the place is taken",
    SW.FILE_NOT_FOUND: "the object is not there",
    SW.REFERENCE_NOT_FOUND: "the key is not there",
    SW.INS_NOT_SUPPORTED: "it does not do that, as it was initialised",
    SW.CONDITIONS_NOT_MET: "it does not do that in its present state",
    SW.WRONG_DATA: "it does not take the data",
}


_PAD_WORDS = {
    SW.PAD_TIMEOUT: "no PIN was typed",
    SW.PAD_CANCELLED: "the PIN was cancelled",
    SW.PAD_PINS_DIFFER: "the two new PINs differed",
    SW.PAD_PIN_LENGTH: "the PIN was too short or too long",
}


class ModuleSaid(TokenError):
    """A Cryptoki call that failed with `rv`."""

    def __init__(self, failed: Failed) -> None:
        meaning = f"{failed.where}: {spec.rv_meaning(failed.rv)}" if failed.rv else failed.where
        super().__init__(meaning, failed.rv)


class CardRefused(TokenError):
    """A card has refused a command; the message names the command and the status word."""

    def __init__(self, said: CardSaid) -> None:
        name = INS(said.ins).name if said.ins in set(INS) else f"{said.ins:02X}"
        meaning = _CARD_WORDS.get(SW(said.sw)) if said.sw in set(SW) else None
        what = f"{name} {said.sw:04X}"
        super().__init__(f"the card says no: {meaning} ({what})" if meaning else what)


R = TypeVar("R")


class Worker:
    """One worker that a command started."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, message: Request | Order, answer: type[R], seconds: float = SECONDS) -> R:
        """Send one request and return its answer.

        Raises PinIncorrect, PinLocked, ModuleSaid, CardRefused, WorkerDied.
        """
        reply: Reply | OrderReply = await self._link.request(message, seconds)
        if isinstance(reply, Failed):
            raise _error(reply, by_so=_by_so(message))
        if isinstance(reply, CardSaid):
            raise _card_error(reply)
        if not isinstance(reply, answer):
            raise TokenError("a worker answered something else than it was asked")
        return reply


def _by_so(message: Request | Order) -> bool:
    """Whether the first PIN in a message is the security officer's."""
    return isinstance(message, (InitToken, InitPin)) or (isinstance(message, SetPin) and message.so)


def _error(failed: Failed, *, by_so: bool) -> TokenError:
    name = "SO-PIN" if by_so else "PIN"
    if failed.rv in (spec.CKR_PIN_INCORRECT, spec.CKR_PIN_INVALID):
        return PinIncorrect(f"the {name} is wrong", failed.rv)
    if failed.rv == spec.CKR_PIN_LOCKED:
        return PinLocked(f"the {name} is blocked", failed.rv)
    return ModuleSaid(failed)


def _card_error(said: CardSaid) -> TokenError:
    if said.sw in _PAD_WORDS:
        return PinError(f"{_PAD_WORDS[SW(said.sw)]} on the reader; nothing was tried")
    by_so = said.ins == INS.RESET_RETRY_COUNTER
    if said.sw & ~_TRIES == SW.WRONG_PIN:
        left = said.sw & _TRIES
        tries = f"{left} {'try is' if left == 1 else 'tries are'} left"
        return PinIncorrect(f"the {'SO-PIN' if by_so else 'PIN'} is wrong; {tries}")
    if said.ins == INS.INITIALIZE and said.sw == SW.CONDITIONS_NOT_MET:
        return PinIncorrect("the SO-PIN is wrong; nothing was erased")
    if said.sw == SW.PIN_BLOCKED:
        return PinLocked(f"the {'SO-PIN' if by_so else 'PIN'} is blocked")
    return CardRefused(said)


def module_program(module: ModuleSpec) -> Program:
    """Return what a worker for a PKCS#11 module runs."""
    return Program(
        "hsmagent.worker.manage",
        f"the module {module.path}",
        (module.path, module.parameters),
        module.env,
    )


def card_program(module: ModuleSpec) -> Program:
    """Return what a worker for cards runs. It finds pcscd where the module's environment says."""
    return Program(_CARD, "the smart card service", (), module.env)


@asynccontextmanager
async def running(program: Program, module: ModuleSpec | None = None) -> AsyncIterator[Worker]:
    """Start a worker and end it. Raises TokenError when it cannot start.

    module: the module that the worker loads, if any; its files may tell why it does not start.
    """
    link = Link(program, start_seconds=_START, on_room=_nothing, on_lost=_nothing)
    try:
        ready: Any = await link.ready
        if isinstance(ready, Failed):
            reason = why(module) if module else ""
            raise TokenError(reason, ready.rv) if reason else ModuleSaid(ready)
        yield Worker(link)
    except WorkerDied as error:
        raise WorkerDied(_ended(str(error), program)) from None
    finally:
        link.kill("the command is done")
        await asyncio.shield(link.exited)


def _ended(reason: str, program: Program) -> str:
    """Return why a worker ended. Nobody restarts it here, and a busy card may be the reason."""
    reason = reason.removesuffix(" and was restarted")
    speaks_to_cards = program.main == _CARD or any(map(is_opensc, program.arguments))
    if speaks_to_cards and reason.endswith("in time"):
        reason += "; if another program keeps a card to itself, end that one"
    return reason


def _nothing(*_: object) -> None:
    pass
