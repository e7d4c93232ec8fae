"""`hsmagent data …`: data objects, which a token keeps for whoever asks, or behind its PIN."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hsmagent.errors import TokenError, UsageError
from hsmagent.manage import pins
from hsmagent.manage.person import confirm
from hsmagent.manage.place import Place, Token, alone
from hsmagent.manage.worker import ModuleSaid, Worker
from hsmagent.model import printable
from hsmagent.worker import spec
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import Attributes, Create, Destroy, Find, Objects

_TRUE, _FALSE = b"\1", b"\0"
_TOKEN = (spec.CKA_TOKEN, _TRUE)
LARGEST = 1 << 16
_DATA = (spec.CKA_CLASS, spec.ulong(spec.CKO_DATA))
_WANTED = (spec.CKA_LABEL, spec.CKA_APPLICATION, spec.CKA_PRIVATE, spec.CKA_VALUE)


@dataclass(frozen=True, slots=True)
class Named:
    """Which data object: under which label, and whether it is behind the PIN."""

    label: str
    private: bool

    @property
    def matching(self) -> Attributes:
        """The attributes by which the object is found."""
        private = _TRUE if self.private else _FALSE
        return (_DATA, (spec.CKA_LABEL, self.label.encode()), (spec.CKA_PRIVATE, private))


@asynccontextmanager
async def _open(place: Place, token: Token, *, login: bool) -> AsyncIterator[Worker]:
    """Give a worker. login: one that is logged in, for what is behind the PIN."""
    if not login:
        async with alone(token) as worker:
            yield worker
        return
    pins.expect_login(place, token)
    async with pins.login(place, token) as worker:
        yield worker


async def _values(worker: Worker, token: Token, matching: Attributes) -> list[dict[int, bytes]]:
    found = await worker.ask(Find(token.slot, matching, _WANTED), Objects)
    return [dict(thing.attributes) for thing in found.objects]


async def listing(place: Place, *, private: bool) -> str:
    """Carry out `data list`: return a line for each object. private: those behind the PIN, too."""
    token = await place.token()
    async with _open(place, token, login=private) as worker:
        found = await _values(worker, token, (_DATA,))
    return "\n".join(map(_line, found))


def _line(values: dict[int, bytes]) -> str:
    label, application = (
        printable(values.get(number, b"").decode(errors="replace"))
        for number in (spec.CKA_LABEL, spec.CKA_APPLICATION)
    )
    size = len(values.get(spec.CKA_VALUE, b""))
    secret = ", behind the PIN" if any(values.get(spec.CKA_PRIVATE, b"")) else ""
    return f"{label}: {size} bytes{f', of {application}' if application else ''}{secret}"


async def read(place: Place, wish: Named) -> bytes:
    """Carry out `data read`: return what the object holds."""
    token = await place.token()
    async with _open(place, token, login=wish.private) as worker:
        found = await _values(worker, token, wish.matching)
    if not found:
        raise _absent(token, wish)
    if len(found) > 1:
        raise UsageError(f"{len(found)} data objects are called “{wish.label}”")
    return found[0].get(spec.CKA_VALUE, b"")


def _absent(token: Token, wish: Named) -> UsageError:
    behind = " behind its PIN" if wish.private else "; --private looks behind its PIN"
    return UsageError(f"{token.name} has no data “{printable(wish.label)}”{behind}")


async def write(place: Place, wish: Named, application: str, content: bytes) -> None:
    """Carry out `data write`: make an object, or replace the content of one that is there."""
    if not wish.label or printable(wish.label) != wish.label:
        raise UsageError("the label must have characters, and all must show")
    if len(content) > LARGEST:
        raise UsageError(f"a token keeps {LARGEST} bytes at most in one data object")
    token = await place.token()
    template = (
        *wish.matching,
        _TOKEN,
        (spec.CKA_APPLICATION, application.encode()),
        (spec.CKA_VALUE, content),
    )
    if not wish.private:
        async with alone(token) as worker:
            _agree(place, token, wish, bool(await _values(worker, token, wish.matching)))
    async with _open(place, token, login=True) as worker:
        old = await _values(worker, token, wish.matching)
        if wish.private:
            _agree(place, token, wish, bool(old))
        if old:
            await worker.ask(Destroy(token.slot, wish.matching), Done)
        try:
            await _create(worker, token, wish, template)
        except TokenError:
            for each in old:  # as it was before
                kept = (_DATA, _TOKEN, *each.items())
                await worker.ask(Create(token.slot, kept), Done)
            raise
        if wish.private:
            await _see(worker, token, wish, content)
    # By another worker, since OpenSC 0.26 says OK to what a card refuses, and shows it from memory.
    if wish.private:
        await place.again(token)
    else:
        async with alone(token) as worker:
            await _see(worker, token, wish, content)
    place.person.say(f"“{wish.label}” is on {token.name}")


async def _see(worker: Worker, token: Token, wish: Named, content: bytes) -> None:
    now = await _values(worker, token, wish.matching)
    if [each.get(spec.CKA_VALUE, b"") for each in now] != [content]:
        raise TokenError(f"{token.name} said yes, but does not keep what was written")


async def _create(worker: Worker, token: Token, wish: Named, template: Attributes) -> None:
    try:
        await worker.ask(Create(token.slot, template), Done)
    except ModuleSaid as error:
        other = "" if wish.private else "; perhaps it does behind its PIN: --private"
        raise TokenError(f"{token.name} does not keep this data{other} ({error})") from None


def _agree(place: Place, token: Token, wish: Named, there: bool) -> None:  # noqa: FBT001 - a fact
    if there:
        confirm(place.person, f"This replaces “{wish.label}” on {token.name}.", wish.label)


async def delete(place: Place, wish: Named) -> None:
    """Carry out `data delete`."""
    token = await place.token()
    if not wish.private:
        async with alone(token) as worker:
            if not await _values(worker, token, wish.matching):
                raise _absent(token, wish)
    warning = f"This deletes the data “{printable(wish.label)}” on {token.name} for good."
    confirm(place.person, warning, wish.label)
    async with _open(place, token, login=True) as worker:
        if not await _values(worker, token, wish.matching):
            raise _absent(token, wish)
        await worker.ask(Destroy(token.slot, wish.matching), Done)
        if await _values(worker, token, wish.matching):
            raise TokenError(f"{token.name} said yes, but the data is still there")
    place.person.say(f"“{printable(wish.label)}” is deleted")
